// Supervisors of two nodes as processes: TLS over loopback, and over a link between two network
// namespaces that is cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "base/tls.hpp"
#include "tests/supervisor/supervised.hpp"

namespace troupe::supervisor::test {
namespace {

using ::testing::HasSubstr;

// Rank 0 on node 0, rank 1 on node 1.
class Nodes : public ::testing::Test {
 protected:
  void SetUp() override { make_credentials("gang"); }

  void make_credentials(const std::string& name) {
    const auto made = base::make_gang_credentials();
    ASSERT_TRUE(made);
    std::filesystem::create_directory(folder_ / name);
    std::ofstream(folder_ / (name + "/tls.crt")) << made->certificate;
    std::ofstream(folder_ / (name + "/tls.key")) << made->key;
    std::ofstream(folder_ / (name + "/ca.crt")) << made->authority;
    std::filesystem::permissions(folder_ / (name + "/tls.key"), std::filesystem::perms::owner_read);
  }

  [[nodiscard]] std::vector<std::string> words(int node, const std::vector<std::string>& more) {
    std::vector<std::string> all = {"world=2", "nnodes=2", fmt::format("node_rank={}", node)};
    bool plain = false;
    bool build = false;
    for (const std::string& word : more) {
      plain = plain || word == "plain" || word.starts_with("gang_tls=");
      build = build || word.starts_with("build_id=");
      all.push_back(word);
    }
    if (!plain) all.push_back("gang_tls=" + (folder_ / "gang"));
    if (!build) all.emplace_back("build_id=b");
    return all;
  }

  void start_leader(std::vector<std::string> more = {}, std::vector<std::string> launcher = {},
                    const std::string& host = "127.0.0.1") {
    std::filesystem::remove(folder_ / "port");
    more.push_back("link_host=" + host);
    more.push_back("link_port_file=" + (folder_ / "port"));
    leader = std::make_unique<supervised>(words(0, more), std::move(launcher));
    ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder_ / "port"); }))
        << leader->log();
    port_ = std::stoi(read_file(folder_ / "port"));
  }

  void start_other(std::vector<std::string> more = {}, std::vector<std::string> launcher = {},
                   const std::string& host = "127.0.0.1") {
    more.push_back("leader_host=" + host);
    more.push_back(fmt::format("leader_port={}", port_));
    other = std::make_unique<supervised>(words(1, more), std::move(launcher));
  }

  void start_both() {
    start_leader();
    start_other();
    connected();
  }

  void connected() {
    ASSERT_TRUE(wait_until([&] { return leader->logged("node 1 is connected"); })) << leader->log();
    ASSERT_TRUE(wait_until([&] { return other->logged("node 0 is connected"); })) << other->log();
    ASSERT_GT(leader->wait_for_start(0), 0);
    ASSERT_GT(other->wait_for_start(1), 0);
  }

  static void expect_within_a_second(std::uint64_t from_ns, const std::optional<record>& told) {
    ASSERT_TRUE(told);
    const double took = static_cast<double>(told->at_ns - from_ns) * 1e-6;
    std::printf("             noticed after %.1f ms: %s\n", took, told->what.c_str());
    EXPECT_LT(took, static_cast<double>(second_in_ci.count()));
  }

  static int count(const std::string& text, const std::string& part) {
    int found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
      ++found;
    }
    return found;
  }

  temporary_folder folder_;
  int port_ = 0;
  std::unique_ptr<supervised> leader;
  std::unique_ptr<supervised> other;
};

TEST_F(Nodes, NoticeTheLossOfTheOthersRankAtOnce) {
  start_both();
  std::uint64_t killed = base::steady_ns();
  ASSERT_TRUE(send_to(other->wait_for_start(1), SIGKILL));
  expect_within_a_second(killed, leader->wait_for("lost 1 1 killed by signal 9", 0));
  killed = base::steady_ns();
  ASSERT_TRUE(send_to(leader->wait_for_start(0), SIGSTOP));
  expect_within_a_second(killed, other->wait_for("lost 0 1 stopped by signal 19", 1));
  EXPECT_EQ(count(leader->log(), "no heartbeat"), 0);
}

TEST_F(Nodes, NoticeWhenTheOtherSupervisorIsKilled) {
  start_both();
  std::uint64_t killed = base::steady_ns();
  other->send(SIGKILL);
  expect_within_a_second(killed, leader->wait_for("lost 1 0 node 1: ", 0));
  start_other();
  ASSERT_TRUE(wait_until([&] { return count(leader->log(), "node 1 is connected") == 2; }));
  killed = base::steady_ns();
  leader->send(SIGKILL);
  expect_within_a_second(killed, other->wait_for("lost 0 0 node 0: ", 1));
}

TEST_F(Nodes, NoticeWhenTheOtherSupervisorIsStoppedAndTakeItBack) {
  start_both();
  std::uint64_t stopped = base::steady_ns();
  other->send(SIGSTOP);
  expect_within_a_second(stopped, leader->wait_for("lost 1 0 node 1: no heartbeat for 800 ms", 0));
  other->send(SIGCONT);
  // It finds its connection closed, and dials again.
  EXPECT_TRUE(other->wait_for("lost 0 0 node 0: ", 1));
  ASSERT_TRUE(wait_until([&] { return count(other->log(), "node 0 is connected") == 2; }));
  stopped = base::steady_ns();
  leader->send(SIGSTOP);
  expect_within_a_second(stopped, other->wait_for("lost 0 0 node 0: no heartbeat for 800 ms", 1));
  leader->send(SIGCONT);
  EXPECT_TRUE(leader->wait_for("lost 1 0 node 1: ", 0, 2));
  EXPECT_TRUE(wait_until([&] { return count(leader->log(), "node 1 is connected") >= 3; }));
}

TEST_F(Nodes, DialUntilNodeZeroIsThere) {
  start_both();
  leader->send(SIGKILL);
  ASSERT_TRUE(wait_until([&] { return other->logged("node 0 cannot be reached yet"); }));
  start_leader({fmt::format("link_port={}", port_)});
  EXPECT_TRUE(wait_until([&] { return count(other->log(), "node 0 is connected") == 2; }))
      << other->log();
}

TEST_F(Nodes, FindNodeZeroByName) {
  start_leader();
  start_other({}, {}, "localhost");
  connected();
  EXPECT_TRUE(wait_until([&] {
    return read_file(fmt::format("/proc/{}/task/{}/children", other->process(),
                                 other->process())) == fmt::format("{} ", other->wait_for_start(1));
  })) << "the resolver's process stays";
}

TEST_F(Nodes, SayThatANameIsUnknown) {
  start_leader();
  start_other({}, {}, "no-such-host.invalid");
  EXPECT_TRUE(wait_until([&] { return other->logged("node 0 cannot be reached yet"); }));
  EXPECT_TRUE(other->logged("no-such-host.invalid")) << other->log();
}

TEST_F(Nodes, RefuseStrangersWithoutEffect) {
  start_both();
  make_credentials("strangers");
  supervised stranger(words(1, {"gang_tls=" + (folder_ / "strangers"), "leader_host=127.0.0.1",
                                fmt::format("leader_port={}", port_)}));
  EXPECT_TRUE(wait_until([&] { return leader->logged("from outside the gang is refused"); }));
  std::vector<base::fd> silent;
  for (int at = 0; at < 30; ++at) {
    auto socket = base::connect_to("127.0.0.1", static_cast<std::uint16_t>(port_), second_in_ci);
    ASSERT_TRUE(socket);
    const std::string noise(static_cast<std::size_t>(at) * 100, '\x16');
    ::send(socket->get(), noise.data(), noise.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    silent.push_back(std::move(*socket));
  }
  // Those that say nothing are closed on.
  EXPECT_TRUE(wait_until([&] {
    char byte = 0;
    return ::recv(silent[0].get(), &byte, 1, MSG_DONTWAIT) == 0;
  }));
  EXPECT_TRUE(leader->records("lost").empty());
  EXPECT_TRUE(other->records("lost").empty());
  EXPECT_FALSE(leader->logged("cannot")) << leader->log();
}

TEST_F(Nodes, SayOnBothSidesWhatDiffers) {
  start_leader();
  start_other({"build_id=c"});
  EXPECT_TRUE(wait_until([&] {
    return leader->logged("node 1 is refused: it runs build c, this node b");
  })) << leader->log();
  EXPECT_TRUE(wait_until([&] {
    return other->logged("node 0 is refused: it runs build b, this node c");
  })) << other->log();
}

TEST_F(Nodes, AlsoWorkWithoutCertificates) {
  start_leader({"plain"});
  start_other({"plain"});
  connected();
  const std::uint64_t killed = base::steady_ns();
  ASSERT_TRUE(send_to(other->wait_for_start(1), SIGKILL));
  expect_within_a_second(killed, leader->wait_for("lost 1 1 killed by signal 9", 0));
}

TEST_F(Nodes, LeaveWhenRankZeroHasDrained) {
  start_both();
  other->send(SIGTERM);
  ASSERT_TRUE(wait_until([&] { return other->logged("SIGTERM"); }));
  EXPECT_TRUE(other->records("drain").empty());
  leader->send(SIGTERM);
  EXPECT_EQ(leader->exit_code(), 0);
  EXPECT_EQ(other->exit_code(), 0);
}

// Two namespaces with one link; they go away with the object.
class linked_namespaces {
 public:
  linked_namespaces()
      : names_{fmt::format("troupe-a-{}", ::getpid()), fmt::format("troupe-b-{}", ::getpid())} {
    good_ = ::geteuid() == 0 && !program().empty() && ip("netns add " + names_[0]) &&
            ip("netns add " + names_[1]) &&
            ip(fmt::format("link add link0 netns {} type veth peer name link0 netns {}", names_[0],
                           names_[1])) &&
            ip(fmt::format("-n {} addr add 198.18.0.1/30 dev link0", names_[0])) &&
            ip(fmt::format("-n {} addr add 198.18.0.2/30 dev link0", names_[1])) && set("up") &&
            ip(fmt::format("-n {} link set link0 up", names_[1]));
  }
  linked_namespaces(const linked_namespaces&) = delete;
  linked_namespaces& operator=(const linked_namespaces&) = delete;
  ~linked_namespaces() {
    for (const std::string& name : names_) ip("netns delete " + name);
  }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool set(const std::string& state) const {
    return ip(fmt::format("-n {} link set link0 {}", names_[0], state));
  }
  [[nodiscard]] std::vector<std::string> launcher(std::size_t at) const {
    return {program(), "netns", "exec", names_[at]};
  }

 private:
  static std::string program() {
    for (const char* path : {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"}) {
      if (std::filesystem::exists(path)) return path;
    }
    return "";
  }
  static bool ip(const std::string& words) {
    std::vector<std::string> arguments = {"ip"};
    std::istringstream stream(words);
    for (std::string word; stream >> word;) arguments.push_back(word);
    const base::fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    auto child = base::spawn({.program = program(),
                              .arguments = arguments,
                              .descriptors = {{null.get(), 1}, {null.get(), 2}},
                              .null_input = true});
    if (!child) return false;
    int status = 1;
    return ::waitpid(child->id, &status, 0) == child->id && status == 0;
  }

  std::array<std::string, 2> names_;
  bool good_ = false;
};

TEST_F(Nodes, NoticeOnBothSidesThatTheLinkIsCut) {
  const linked_namespaces net;
  if (!net.good()) GTEST_SKIP() << "no network namespaces: not root, or no ip program";
  start_leader({}, net.launcher(0), "198.18.0.1");
  start_other({}, net.launcher(1), "198.18.0.1");
  connected();
  for (std::size_t round = 1; round <= 2; ++round) {
    const std::uint64_t cut = base::steady_ns();
    ASSERT_TRUE(net.set("down"));
    expect_within_a_second(cut,
                           leader->wait_for("lost 1 0 node 1: no heartbeat for 800 ms", 0, round));
    expect_within_a_second(cut,
                           other->wait_for("lost 0 0 node 0: no heartbeat for 800 ms", 1, round));
    ASSERT_TRUE(net.set("up"));
    ASSERT_TRUE(wait_until([&] {
      return count(other->log(), "node 0 is connected") == static_cast<int>(round) + 1;
    })) << other->log();
  }
}

}  // namespace
}  // namespace troupe::supervisor::test
