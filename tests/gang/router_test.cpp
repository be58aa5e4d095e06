// `troupe router` before real gangs that are killed, drained and started again under load.
#include <gtest/gtest.h>

#include <memory>

#include "tests/gang/asking_clients.hpp"
#include "tests/gang/running_program.hpp"

namespace troupe::gang_test {
namespace {

std::vector<std::string> router_words(const std::vector<std::string>& gangs) {
  std::vector<std::string> words = {"router", "--port", "0"};
  for (const std::string& url : gangs) {
    words.emplace_back("--gang");
    words.push_back(url);
  }
  return words;
}

class RoutedGangs : public ::testing::Test {
 protected:
  void SetUp() override {
    a_ = std::make_unique<served_gang>(std::vector<std::string>{"--tensor-parallel-size", "2"});
    b_ = std::make_unique<served_gang>(std::vector<std::string>{});
    ASSERT_TRUE(a_->ready_within()) << a_->log();
    ASSERT_TRUE(b_->ready_within()) << b_->log();
    router_ = std::make_unique<running_program>(router_words({a_->url(), b_->url()}));
    ASSERT_TRUE(wait_until([&] { return ready(*a_) && ready(*b_); })) << router_->log();
  }
  [[nodiscard]] bool ready(served_gang& gang) const {
    const std::string name = gang.url().substr(std::string("http://").size());
    return router_->metric("troupe_router_gang_ready{gang=\"" + name + "\"}") == 1.0;
  }
  // More than all clients have open now: what follows was asked for after this.
  static void more(const asking_clients& clients, int requests) {
    const int before = clients.completed();
    ASSERT_TRUE(wait_until([&] { return clients.completed() >= before + requests; }));
  }
  static void expect_one_answer_each(const asking_clients& clients) {
    for (const auto& [prompt, texts] : clients.texts()) EXPECT_EQ(texts.size(), 1U) << prompt;
  }

  std::unique_ptr<served_gang> a_;
  std::unique_ptr<served_gang> b_;
  std::unique_ptr<running_program> router_;
};

TEST_F(RoutedGangs, AKilledRankLosesNoRequestThatHadNotBegun) {
  asking_clients clients(router_->url(), 8);
  more(clients, 20);
  for (int loss = 0; loss < 3; ++loss) {
    ASSERT_TRUE(a_->send_signal(loss % 2, SIGKILL));
    more(clients, 20);
    ASSERT_TRUE(wait_until([&] { return ready(*a_); })) << router_->log();
  }
  more(clients, 20);
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  EXPECT_EQ(router_->metric("troupe_router_gave_up_total"), 0.0);
  expect_one_answer_each(clients);
}

TEST_F(RoutedGangs, AKilledGangLosesNoRequestThatHadNotBegun) {
  asking_clients clients(router_->url(), 8);
  more(clients, 20);
  ASSERT_EQ(::kill(a_->supervisor(), SIGKILL), 0);
  // The other gang may answer 60 requests between two probes.
  ASSERT_TRUE(wait_until([&] { return !ready(*a_); })) << router_->log();
  more(clients, 60);
  EXPECT_FALSE(ready(*a_));
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  expect_one_answer_each(clients);
}

TEST_F(RoutedGangs, AGangThatDrainsLosesNothingAtAll) {
  asking_clients clients(router_->url(), 8);
  more(clients, 20);
  ASSERT_EQ(::kill(a_->supervisor(), SIGTERM), 0);
  EXPECT_EQ(a_->wait(), 0) << a_->log();
  more(clients, 40);
  clients.stop();
  EXPECT_TRUE(clients.lost().empty()) << clients.lost().front() << router_->log();
  EXPECT_EQ(clients.cut(), 0) << router_->log();
  expect_one_answer_each(clients);
  EXPECT_EQ(router_->end(), 0) << router_->log();
}

}  // namespace
}  // namespace troupe::gang_test
