// UCX between processes, and between hosts as far as network namespaces are hosts: a killed peer,
// many epochs on few ports, a device of its own, a process that UCX leaves as it was.
#include "tests/transport/ucx_process_runner.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

namespace troupe::transport::testing {
namespace {

using std::chrono::steady_clock;

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

// --- parts of ranks, each in a process of its own -------------------------------

data_plane_seat seat_from_environment() {
  return {.epoch = epoch,
          .rank = std::stoi(variable("TEST_RANK")),
          .shape = {.tp_size = std::stoi(variable("TEST_RANKS"))}};
}

// Sums until one fails; tells how that ended, and when.
void sums_until_it_fails() {
  auto rank = connect_rank(seat_from_environment());
  ASSERT_TRUE(rank) << rank.error().message;
  std::vector<float> values(std::stoul(variable("TEST_FLOATS")), 0.0F);
  base::result<void> outcome;
  for (int turn = 0; outcome; ++turn) {
    outcome = rank->groups.tp->all_reduce_sum(epoch, values);
    if (turn == 20) channel_send(rank_channel, "working");
  }
  const auto ended = steady_clock::now().time_since_epoch().count();
  channel_send(rank_channel, std::to_string(ended) + " " + error_of(outcome));
}

void sums_and_moves() {
  auto rank = connect_rank(seat_from_environment());
  ASSERT_TRUE(rank) << rank.error().message;
  collective& group = *rank->groups.tp;
  for (const std::size_t count : {1UL, 2048UL, 100000UL, 1000000UL}) {
    std::vector<float> values = adversarial(count, group.rank(), count);
    TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
    EXPECT_EQ(differing_bits(values, reference_sum(count, group.size(), count)), 0U) << count;
    std::vector<std::byte> bytes(count);
    if (group.rank() == 0) bytes = pattern(count, 0, 0, count);
    TROUPE_EXPECT_OK(group.broadcast(epoch, 0, bytes));
    EXPECT_EQ(bytes, pattern(count, 0, 0, count));
  }
  channel_send(rank_channel, ::testing::Test::HasFailure() ? "wrong" : "right");
}

void opens_fifty_times() {
  for (std::uint64_t number = 0; number < 50; ++number) {
    ucx_gang gang({.shape = {.tp_size = 2}, .epoch = {.incarnation = 1, .number = number}});
    gang.run([&](int, rank_groups& groups) {
      std::vector<float> values(1000, 1.0F);
      TROUPE_EXPECT_OK(groups.tp->all_reduce_sum({.incarnation = 1, .number = number}, values));
      EXPECT_EQ(values[999], 2.0F);
    });
    ASSERT_FALSE(::testing::Test::HasFailure()) << "epoch " << number;
  }
  channel_send(rank_channel, "done");
}

// What the process does on each signal, as far as a handler tells.
std::vector<void*> handlers() {
  std::vector<void*> all;
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) != 0) action.sa_handler = SIG_ERR;
    all.push_back(reinterpret_cast<void*>(action.sa_handler));
  }
  return all;
}

void stays_as_it_was(const std::vector<void*>& before) {
  ::testing::internal::CaptureStdout();
  {
    ucx_gang gang({.shape = {.tp_size = 2}});
    gang.run([](int, rank_groups& groups) { TROUPE_EXPECT_OK(groups.tp->barrier(epoch)); });
    ucx_gang half({.shape = {.tp_size = 2}});
    half.close(1);  // makes UCX log an error
    EXPECT_FALSE(half.plane(0).connect(half.addresses(), std::chrono::seconds(10)));
  }
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(handlers(), before);
  channel_send(rank_channel, ::testing::Test::HasFailure() ? "changed" : "unchanged");
}

TEST(UcxRank, PlaysThePartItWasStartedFor) {
  const std::string part = variable("TEST_PART");
  if (part.empty()) GTEST_SKIP() << "the tests of UcxProcesses start this one";
  const auto before = handlers();
  const auto prepared = prepare_ucx_environment({.interface = variable("TEST_DEVICE")});
  ASSERT_TRUE(prepared) << prepared.error().message;
  if (part == "sums_until_it_fails") sums_until_it_fails();
  if (part == "sums_and_moves") sums_and_moves();
  if (part == "opens_fifty_times") opens_fifty_times();
  if (part == "stays_as_it_was") stays_as_it_was(before);
}

// --- tests -------------------------------------------------------------------------------------

std::vector<std::string> variables_of(int rank, int ranks, const std::string& device) {
  return {fmt::format("TEST_RANK={}", rank), fmt::format("TEST_RANKS={}", ranks),
          fmt::format("TEST_DEVICE={}", device)};
}

class UcxProcesses : public ::testing::Test {
 protected:
  // Ranks on loopback, connected.
  void start(std::string_view part, int ranks, const std::string& more) {
    for (int rank = 0; rank < ranks; ++rank) {
      auto variables = variables_of(rank, ranks, "lo");
      variables.push_back(more);
      ranks_.push_back(std::make_unique<rank_process>(part, std::vector<std::string>(), variables));
    }
    ASSERT_TRUE(swap_addresses(ranks_));
  }
  rank_process& rank(int number) { return *ranks_[static_cast<std::size_t>(number)]; }
  std::string hear(int number) {
    return channel_receive(rank(number).channel(), std::chrono::seconds(60));
  }

  std::vector<std::unique_ptr<rank_process>> ranks_;
};

// Small messages, sent at once, and large ones, of which some are always under way.
TEST_F(UcxProcesses, AKilledRankIsNamedToTheOthersAtOnce) {
  for (const std::size_t floats : {2048UL, std::size_t{1} << 20}) {
    bool named = false;
    for (int round = 0; round < 3; ++round) {
      ranks_.clear();
      start("sums_until_it_fails", 4, fmt::format("TEST_FLOATS={}", floats));
      for (int number = 0; number < 4; ++number) ASSERT_EQ(hear(number), "working");
      const auto killed = steady_clock::now().time_since_epoch();
      rank(1).kill(SIGKILL);
      for (const int number : {0, 2, 3}) {
        const std::string told = hear(number);
        ASSERT_NE(told, "") << "rank " << number << " of a sum of " << floats << " floats";
        const auto ended = steady_clock::duration(std::stoll(told));
        EXPECT_LT(ended - killed, std::chrono::seconds(10)) << told;
        const bool gone = told.find("unavailable") != std::string::npos;
        EXPECT_TRUE(gone || told.find("aborted") != std::string::npos) << told;
        // A survivor that leaves may be missed before the one that was killed.
        named = named || (gone && told.find("rank 1 is gone") != std::string::npos);
        EXPECT_EQ(rank(number).wait(), 0) << "rank " << number;
      }
    }
    EXPECT_TRUE(named);
  }
}

// The first of 16 free ports in a row, or 0: below the range from which the kernel takes others'.
int free_ports() {
  for (int first = 20000; first < 30000; first += 16) {
    bool free = true;
    for (int port = first; port < first + 16 && free; ++port) {
      const base::fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(static_cast<std::uint16_t>(port));
      address.sin_addr.s_addr = htonl(INADDR_ANY);
      free = ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    }
    if (free) return first;
  }
  return 0;
}

TEST_F(UcxProcesses, FiftyEpochsOfTwoRanksFitIntoSixteenPortsEach) {
  const int first = free_ports();
  ASSERT_NE(first, 0);
  auto variables = variables_of(0, 1, "lo");
  variables.push_back(fmt::format("UCX_TCP_PORT_RANGE={}-{}", first, first + 31));
  ranks_.push_back(
      std::make_unique<rank_process>("opens_fifty_times", std::vector<std::string>(), variables));
  EXPECT_EQ(hear(0), "done");
  EXPECT_EQ(rank(0).wait(), 0);
}

TEST_F(UcxProcesses, UcxPrintsNothingToStdoutAndTakesNoSignal) {
  ranks_.push_back(std::make_unique<rank_process>("stays_as_it_was", std::vector<std::string>(),
                                                  variables_of(0, 1, "lo")));
  EXPECT_EQ(hear(0), "unchanged");
  EXPECT_EQ(rank(0).wait(), 0);
}

// --- two hosts ---------------------------------------------------------------------------------

int shell(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str());
}

// Two network namespaces joined by a pair of devices; gone with this object.
class two_hosts {
 public:
  two_hosts() : tag_(fmt::format("tu{}", ::getpid())) {
    made_ = shell(fmt::format("ip netns add {}", name(0))) == 0 &&
            shell(fmt::format("ip netns add {}", name(1))) == 0 &&
            shell(fmt::format("ip link add {} netns {} type veth peer name {} netns {}", device(0),
                              name(0), device(1), name(1))) == 0 &&
            up(0) && up(1) && carries(0) && carries(1);
  }
  two_hosts(const two_hosts&) = delete;
  two_hosts& operator=(const two_hosts&) = delete;
  ~two_hosts() {
    for (const int host : {0, 1}) shell(fmt::format("ip netns del {}", name(host)));
  }

  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] std::string name(int host) const {
    return fmt::format("{}{}", tag_, host == 0 ? "a" : "b");
  }
  [[nodiscard]] std::string device(int host) const { return fmt::format("v{}", name(host)); }
  // Bytes that came in over the pair.
  [[nodiscard]] long received(int host) const {
    const std::string command = fmt::format(
        "ip netns exec {} cat /sys/class/net/{}/statistics/rx_bytes", name(host), device(host));
    FILE* const pipe = ::popen(command.c_str(), "r");
    long bytes = -1;
    if (std::fscanf(pipe, "%ld", &bytes) != 1) bytes = -1;
    ::pclose(pipe);
    return bytes;
  }

 private:
  [[nodiscard]] bool up(int host) const {
    return shell(fmt::format("ip -n {} addr add 10.213.0.{}/24 dev {}", name(host), host + 1,
                             device(host))) == 0 &&
           shell(fmt::format("ip -n {} link set lo up", name(host))) == 0 &&
           shell(fmt::format("ip -n {} link set {} up", name(host), device(host))) == 0;
  }
  // The kernel brings a pair up some time after both ends were asked to.
  [[nodiscard]] bool carries(int host) const {
    const auto deadline = steady_clock::now() + std::chrono::seconds(10);
    const std::string command = fmt::format(
        "ip netns exec {} grep -q up /sys/class/net/{}/operstate", name(host), device(host));
    while (shell(command) != 0) {
      if (steady_clock::now() > deadline) return false;
    }
    return true;
  }
  const std::string tag_;
  bool made_ = false;
};

TEST_F(UcxProcesses, TwoHostsMeetOverTheDeviceTheyAreBoundTo) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to make network namespaces";
  const two_hosts hosts;
  if (!hosts.made()) GTEST_SKIP() << "this machine makes no network namespaces (ip netns, veth)";
  for (int host = 0; host < 2; ++host) {
    ranks_.push_back(std::make_unique<rank_process>(
        "sums_and_moves", std::vector<std::string>{"ip", "netns", "exec", hosts.name(host)},
        variables_of(host, 2, hosts.device(host))));
  }
  ASSERT_TRUE(swap_addresses(ranks_));
  for (const int host : {0, 1}) {
    EXPECT_EQ(hear(host), "right") << "host " << host;
    EXPECT_EQ(rank(host).wait(), 0);
  }
  // The sums of 1.1 million floats, at least, have crossed.
  EXPECT_GT(hosts.received(0), 4L * 1102049);
  EXPECT_GT(hosts.received(1), 4L * 1102049);
}

}  // namespace
}  // namespace troupe::transport::testing
