// Losing each rank in each phase, by SIGKILL and by SIGSTOP, and losing the cable, of a gang over
// two hosts: somebody who can tell says so at once, the leader is not ready, open requests end, and
// the gang that forms again gives the same tokens.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

#include "tests/gang/two_hosts.hpp"

namespace troupe::gang_test {
namespace {

constexpr std::string_view cable = "cable";

struct loss {
  std::string_view data_plane;
  std::string_view phase;
  std::string_view what;  // a signal, or the cable
  int rank;               // also its node
};

std::string name_of(const testing::TestParamInfo<loss>& info) {
  const loss& one = info.param;
  const std::string name = fmt::format("{}_{}_{}", one.data_plane, one.phase, one.what);
  return one.what == cable ? name : name + "_rank" + std::to_string(one.rank);
}

class LosingOverTwoHosts : public testing::TestWithParam<loss> {
 protected:
  void SetUp() override {
    if (!hosts_.made()) GTEST_SKIP() << "needs root and the ip program for network namespaces";
    gang_ = std::make_unique<two_host_gang>(hosts_, std::string(GetParam().data_plane));
  }

  // Brings the gang into the phase in which it is hit.
  void enter_phase() {
    const std::string_view phase = GetParam().phase;
    if (phase == "boot") {
      ASSERT_TRUE(wait_until([&] {
        return gang_->front().process_of(0) != 0 && gang_->node(1).process_of(1) != 0 &&
               gang_->said(0, "node 1 is connected");
      })) << gang_->logs();
      return;
    }
    ASSERT_TRUE(gang_->front().ready_within()) << gang_->logs();
    if (phase == "idle") return;
    body_ = completion_body(2000);
    if (phase == "prefill") {
      body_["prompt"] = std::vector<int>(3900, 5);
      body_["max_tokens"] = 64;
    }
    stream_ = std::make_unique<open_stream>(gang_->front().url(), body_);
    ASSERT_TRUE(wait_until([&] {
      return phase == "prefill" ? gang_->front().metric("vllm:num_requests_running") >= 1.0
                                : stream_->pieces() >= 20;
    }));
  }

  void hit() {
    if (GetParam().what == cable) {
      hosts_.cut();
      return;
    }
    const int number = GetParam().what == "SIGKILL" ? SIGKILL : SIGSTOP;
    ASSERT_TRUE(gang_->node(GetParam().rank).send_signal(GetParam().rank, number)) << gang_->logs();
  }

  // The node of a rank that is hit says so; a cable's both ends do.
  [[nodiscard]] bool is_said() const {
    if (GetParam().what == cable) {
      return gang_->said(0, "lost node 1") && gang_->said(1, "lost node 0");
    }
    return gang_->said(GetParam().rank,
                       "supervisor: rank " + std::to_string(GetParam().rank) + " is lost");
  }

  // The leader was not hit: what was open goes on in the next epoch.
  void expect_the_tokens_it_would_have_had() {
    stream_->join();
    EXPECT_TRUE(stream_->done()) << stream_->error() << gang_->logs();
    EXPECT_EQ(stream_->errors(), 0);
    open_stream undisturbed(gang_->front().url(), body_);
    undisturbed.join();
    EXPECT_TRUE(undisturbed.done()) << undisturbed.error();
    EXPECT_EQ(stream_->text(), undisturbed.text());
  }

  two_hosts hosts_;
  std::unique_ptr<two_host_gang> gang_;
  json body_;
  std::unique_ptr<open_stream> stream_;
};

TEST_P(LosingOverTwoHosts, IsNoticedAndMended) {
  enter_phase();
  if (HasFatalFailure()) return;
  const bool was_ready = GetParam().phase != "boot";
  const pid_t survivor = gang_->node(1 - GetParam().rank).process_of(1 - GetParam().rank);
  const auto begin = steady::now();
  hit();
  if (HasFatalFailure()) return;
  EXPECT_TRUE(wait_until([&] { return is_said(); }, notice_max())) << gang_->logs();
  const auto said = steady::now();
  if (was_ready) {
    EXPECT_TRUE(wait_until(
        [&] {
          // What is mended on the spot may be ready again before it is asked.
          return gang_->front().status("/ready") != 200 ||
                 (GetParam().what != cable && gang_->front().metric("troupe_repairs_total") >= 1.0);
        },
        notice_max()))
        << gang_->logs();
  }
  if (stream_ && GetParam().rank == 0 && GetParam().what != cable) {
    stream_->join();
    EXPECT_LT(stream_->ended() - begin, notice_max());
    // A prefill may have been over before it was hit.
    const bool was_over = GetParam().phase == "prefill" && stream_->done();
    EXPECT_TRUE(was_over || stream_->failed());
    stream_.reset();
  }
  std::printf("noticed after %.0f ms\n",
              std::chrono::duration<double, std::milli>(said - begin).count());
  if (GetParam().what == cable) hosts_.mend();
  ASSERT_TRUE(gang_->front().ready_within()) << gang_->logs();
  if (was_ready) {
    EXPECT_EQ(gang_->node(1 - GetParam().rank).process_of(1 - GetParam().rank), survivor)
        << "the survivor did not keep its process";
  }
  if (stream_) expect_the_tokens_it_would_have_had();
  open_stream again(gang_->front().url(), completion_body(40));
  again.join();
  ASSERT_TRUE(again.done()) << again.error();
  static const std::string alone =
      cli::test::run({"generate", "demo", "--prompt", "A gang is", "--max-tokens", "40",
                      "--ignore-eos", "--temperature", "0", "--ranks", "threads"})
          .out;
  EXPECT_EQ(again.text() + "\n", alone);
}

std::vector<loss> every_loss() {
  std::vector<loss> all;
  for (const std::string_view phase : {"boot", "idle", "prefill", "decode"}) {
    for (const std::string_view plane : {"tls", "ucx"}) {
      if (plane == "ucx" && phase == "boot") continue;  // there is no data plane yet
      for (const int rank : {0, 1}) {
        for (const std::string_view signal : {"SIGKILL", "SIGSTOP"}) {
          all.push_back({plane, phase, signal, rank});
        }
      }
      all.push_back({plane, phase, cable, 0});
    }
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(EveryPhase, LosingOverTwoHosts, testing::ValuesIn(every_loss()), name_of);

}  // namespace
}  // namespace troupe::gang_test
