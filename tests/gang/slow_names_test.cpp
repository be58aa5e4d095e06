// The leader is found by a name that the DNS does not have yet, does not answer, or knows no
// address of: nodes wait, say what for, and serve as soon as it has one.
#include <gtest/gtest.h>

#include "tests/gang/name_server.hpp"
#include "tests/gang/two_hosts.hpp"

namespace troupe::gang_test {
namespace {

using answer = name_server::answer;
constexpr const char* leader_name = "leader.gang.test";

class SlowNames : public testing::Test {
 protected:
  void SetUp() override {
    if (!hosts_.made()) GTEST_SKIP() << "needs root and the ip program for network namespaces";
    for (const int host : {0, 1}) {
      servers_.push_back(std::make_unique<name_server>(hosts_.space(host), hosts_.address(0)));
      ASSERT_TRUE(servers_.back()->works());
    }
    gang_ = two_host_gang::empty(hosts_, "tls");
  }
  void start(int node) { gang_->start(node, {.more = {"--leader", leader_name}}); }
  void give(answer what) {
    for (const auto& one : servers_) one->give(what);
  }
  [[nodiscard]] bool says(int node, const std::string& line) {
    return wait_until([&] { return gang_->said(node, line); });
  }
  void expect_answers() {
    ASSERT_TRUE(gang_->front().ready_within()) << gang_->logs();
    open_stream stream(gang_->front().url(), completion_body(20));
    stream.join();
    EXPECT_TRUE(stream.done()) << stream.error();
  }

  const two_hosts hosts_;
  std::vector<std::unique_ptr<name_server>> servers_;
  std::unique_ptr<two_host_gang> gang_;
};

TEST_F(SlowNames, AreWaitedForWithALineThatSaysSo) {
  for (const int node : {0, 1}) start(node);
  for (const int node : {0, 1}) EXPECT_TRUE(says(node, "no answer for host 'leader.gang.test'"));
  give(answer::unknown_name);
  for (const int node : {0, 1}) EXPECT_TRUE(says(node, "no address for host 'leader.gang.test'"));
  give(answer::no_address);
  for (const auto& one : servers_) {
    const int asked = one->asked();
    EXPECT_TRUE(wait_until([&] { return one->asked() > asked + 4; })) << "it does not ask again";
  }
  EXPECT_TRUE(gang_->front().events("listening").empty());
  give(answer::address);
  expect_answers();
}

TEST_F(SlowNames, AreWaitedForNoLongerThanASigterm) {
  start(1);
  EXPECT_TRUE(says(1, "no answer for host 'leader.gang.test'"));
  ASSERT_EQ(::kill(gang_->node(1).supervisor(), SIGTERM), 0);
  EXPECT_EQ(gang_->node(1).wait(), 0);
}

// Its pod was made anew, with another address.
TEST_F(SlowNames, ALeaderThatComesBackElsewhereIsFoundByTheSameProcesses) {
  give(answer::address);
  for (const int node : {0, 1}) start(node);
  expect_answers();
  const pid_t worker = gang_->node(1).process_of(1);
  ASSERT_EQ(::kill(gang_->node(0).supervisor(), SIGKILL), 0);
  static_cast<void>(gang_->node(0).wait());
  const std::string moved = hosts_.add_address(0);
  for (const auto& one : servers_) one->point_to(moved);
  gang_->start(0, {.more = {"--leader", leader_name, "--gang-host", moved}});
  expect_answers();
  EXPECT_EQ(gang_->node(1).process_of(1), worker) << "the worker did not keep its process";
}

}  // namespace
}  // namespace troupe::gang_test
