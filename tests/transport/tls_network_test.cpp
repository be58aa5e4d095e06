// Two ranks in two network namespaces with a cable between them: the bytes on it, and a cut.
#include "tests/transport/group_runner.hpp"
#include "transport/tls_data_plane.hpp"
#include "transport/tls_wire.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace troupe::transport::testing {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

bool shell(const std::string& command) { return std::system(command.c_str()) == 0; }

// What has left the calling thread's namespace over the cable.
std::uint64_t bytes_out_of(const std::string& device) {
  std::ifstream file("/proc/thread-self/net/dev");
  for (std::string line; std::getline(file, line);) {
    const auto name_end = line.find(device + ":");
    if (name_end == std::string::npos) continue;
    std::istringstream fields(line.substr(name_end + device.size() + 1));
    std::uint64_t value = 0;
    for (int field = 0; field < 9; ++field) fields >> value;  // the ninth is bytes transmitted
    return value;
  }
  return 0;
}

// A namespace belongs to the thread that made it and goes with it, and the cable with both.
class TwoHosts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || !shell("command -v ip > /dev/null")) {
      GTEST_SKIP() << "needs root and the program ip, for network namespaces";
    }
    std::jthread([this] { can_unshare_ = ::unshare(CLONE_NEWNET) == 0; }).join();
    if (!can_unshare_) GTEST_SKIP() << "this kernel or container gives no network namespaces";
  }

  // Runs a rank on each of the hosts; `body` has the groups and the name of its end of the cable.
  using rank_body = std::function<void(int, rank_groups&, data_plane&)>;
  void run(const rank_body& body) {
    const auto ours = base::make_gang_credentials().value();
    std::latch in_namespace(2);
    std::latch cabled(2);
    std::latch opened(2);
    std::atomic<pid_t> threads[2] = {0, 0};
    std::vector<data_plane_address> addresses(2);
    const auto rank_main = [&](int rank) {
      ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
      threads[rank] = ::gettid();
      in_namespace.arrive_and_wait();
      const std::string other = std::to_string(threads[1 - rank].load());
      const std::string own = "10.77.0." + std::to_string(rank + 1);
      bool up = shell("ip link set lo up");
      if (rank == 0) {
        up = up && shell("ip link add cable0 type veth peer name cable1") &&
             shell("ip link set cable1 netns " + other);
      }
      cabled.arrive_and_wait();
      const std::string device = "cable" + std::to_string(rank);
      up = up && shell("ip address add " + own + "/24 dev " + device) &&
           shell("ip link set " + device + " up");
      EXPECT_TRUE(up) << "rank " << rank;
      auto plane = open_tls({.epoch = epoch, .rank = rank, .shape = {.tp_size = 2}},
                            {.credentials = &ours, .host = own});
      if (plane) addresses[static_cast<std::size_t>(rank)] = (*plane)->address();
      opened.arrive_and_wait();
      ASSERT_TRUE(plane) << plane.error().message;
      auto groups = (*plane)->connect(addresses, seconds(30));
      ASSERT_TRUE(groups) << groups.error().message;
      body(rank, *groups, **plane);
    };
    within(seconds(90), [&] {
      std::jthread one(rank_main, 1);
      std::jthread zero(rank_main, 0);
    });
  }

 private:
  bool can_unshare_ = false;
};

TEST_F(TwoHosts, TheCableCarriesWhatTheCountersSayAndLittleMore) {
  run([&](int rank, rank_groups& mine, data_plane& plane) {
    const std::string device = "cable" + std::to_string(rank);
    // The shape of decode: a small sum for each layer, tokens times hidden values.
    constexpr std::size_t values_count = 4096;
    constexpr int sums = 200;
    TROUPE_EXPECT_OK(mine.world->barrier(epoch));
    const std::uint64_t cable_before = bytes_out_of(device);
    const std::uint64_t counted_before = plane.counters().bytes_sent;
    for (int sum = 0; sum < sums; ++sum) {
      std::vector<float> values = adversarial(static_cast<std::uint64_t>(sum), rank, values_count);
      TROUPE_EXPECT_OK(mine.tp->all_reduce_sum(epoch, values));
      EXPECT_EQ(
          differing_bits(values, reference_sum(static_cast<std::uint64_t>(sum), 2, values_count)),
          0U);
    }
    const std::uint64_t payload = sums * values_count * sizeof(float);
    const std::uint64_t counted = plane.counters().bytes_sent - counted_before;
    const std::uint64_t cable = bytes_out_of(device) - cable_before;
    EXPECT_EQ(counted, payload + sums * tls_wire::header_bytes);
    EXPECT_GE(cable, counted);
    RecordProperty("cable_bytes_a_payload_byte",
                   std::to_string(static_cast<double>(cable) / static_cast<double>(payload)));
    EXPECT_LE(cable, payload + payload / 5) << "more than 20 % beyond the values";
    TROUPE_EXPECT_OK(mine.world->barrier(epoch));
  });
}

// Nobody hears of a cut but the supervisors, by their heartbeats; their abort() must end the wait
// although no packet reaches the other side any more.
TEST_F(TwoHosts, AnAbortEndsAWaitOverACutCable) {
  std::latch met(2);
  std::latch cut(2);
  run([&](int rank, rank_groups& mine, data_plane& plane) {
    TROUPE_EXPECT_OK(mine.world->barrier(epoch));
    met.arrive_and_wait();  // the last packet has arrived
    EXPECT_TRUE(rank != 0 || shell("ip link set cable0 down"));
    cut.arrive_and_wait();
    std::atomic<bool> waiting{false};
    steady_clock::time_point start;
    std::jthread supervisor([&] {
      while (!waiting) std::this_thread::yield();
      start = steady_clock::now();
      plane.abort();
    });
    std::vector<std::byte> bytes(8 << 20);
    waiting = true;
    const auto outcome =
        rank == 0 ? mine.tp->send(epoch, 1, bytes) : mine.tp->receive(epoch, 0, bytes);
    const auto back = steady_clock::now();
    supervisor.join();
    TROUPE_EXPECT_FAILS(aborted, outcome);
    EXPECT_LT(back - start, seconds(1));  // promised: 1 ms
  });
}

}  // namespace
}  // namespace troupe::transport::testing
