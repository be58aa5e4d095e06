// A gang over two network namespaces, by TLS and by UCX: forms, gives the bits of threads, moves
// the bytes it should, and says when a node is gone.
#include <gtest/gtest.h>

#include "tests/gang/two_hosts.hpp"

namespace troupe::gang_test {
namespace {

class TwoHosts : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!hosts_.made()) GTEST_SKIP() << "needs root and the ip program for network namespaces";
    gang_ = std::make_unique<two_host_gang>(hosts_, GetParam());
    ASSERT_TRUE(gang_->front().ready_within()) << gang_->front().log() << gang_->node(1).log();
  }
  [[nodiscard]] bool not_ready_within(std::chrono::milliseconds patience) {
    return wait_until([&] { return gang_->front().status("/ready") != 200; }, patience);
  }

  two_hosts hosts_;
  std::unique_ptr<two_host_gang> gang_;
};

TEST_P(TwoHosts, GiveTheBitsOfThreads) {
  json body = completion_body(60);
  body["temperature"] = 1.0;
  body["seed"] = 4242;
  open_stream stream(gang_->front().url(), body);
  stream.join();
  ASSERT_TRUE(stream.done()) << stream.error();
  const auto alone = cli::test::run({"generate", "demo", "--prompt", "A gang is", "--max-tokens",
                                     "60", "--ignore-eos", "--temperature", "1", "--seed", "4242",
                                     "--ranks", "threads"});
  EXPECT_EQ(alone.out, stream.text() + "\n");
}

// Of the demo model (models/demo/files/config.json).
TEST_P(TwoHosts, MoveWhatTheLayersNeedAndLittleMore) {
  const json config = json::parse(
      cli::test::read_file(std::string(TROUPE_SOURCE_DIR) + "/models/demo/files/config.json"));
  constexpr double prompt_tokens = 2000.0;
  constexpr double new_tokens = 10.0;
  json body = completion_body(static_cast<int>(new_tokens));
  body["prompt"] = std::vector<int>(static_cast<std::size_t>(prompt_tokens), 7);
  const double before = hosts_.sent_bytes();
  open_stream stream(gang_->front().url(), body);
  stream.join();
  ASSERT_TRUE(stream.done()) << stream.error();
  const double moved = hosts_.sent_bytes() - before;
  // A sum after attention and one after the MLP, float32, to the other rank.
  const double needed = config["num_hidden_layers"].get<double>() * 2.0 *
                        config["hidden_size"].get<double>() * 4.0 * (prompt_tokens + new_tokens);
  EXPECT_GT(moved, needed * 0.8);
  EXPECT_LT(moved, needed * 1.2);
}

TEST_P(TwoHosts, KeepTheControlPlaneOutOfTheSteps) {
  const double steps = gang_->front().metric("troupe_engine_steps_total");
  const double bytes = hosts_.port_bytes(8472);
  ASSERT_GT(bytes, 0.0);
  open_stream stream(gang_->front().url(), completion_body(1000));
  stream.join();
  ASSERT_TRUE(stream.done()) << stream.error();
  const double stepped = gang_->front().metric("troupe_engine_steps_total") - steps;
  ASSERT_GE(stepped, 900.0);  // the last ones may not be counted yet
  EXPECT_LT((hosts_.port_bytes(8472) - bytes) / stepped, 1024.0);
}

TEST_P(TwoHosts, SayNotReadyWhileANodeIsGone) {
  ASSERT_EQ(::kill(gang_->node(1).supervisor(), SIGKILL), 0);
  EXPECT_TRUE(not_ready_within(notice_max()));
}

INSTANTIATE_TEST_SUITE_P(DataPlanes, TwoHosts, testing::Values("tls", "ucx"),
                         [](const testing::TestParamInfo<const char*>& plane) {
                           return std::string(plane.param);
                         });

}  // namespace
}  // namespace troupe::gang_test
