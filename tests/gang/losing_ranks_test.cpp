// Losing each rank in each phase, by SIGKILL and by SIGSTOP, on real processes: the gang says so at
// once, the others keep their weights, it serves again in a new epoch, and what was open goes on
// there with the tokens that it would have had. Of rank 0 the connections break.
#include <gtest/gtest.h>

#include <memory>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

struct loss {
  const char* phase;
  int rank;
  int signal;
};

std::string name_of(const testing::TestParamInfo<loss>& info) {
  return std::string(info.param.phase) + "_rank" + std::to_string(info.param.rank) +
         (info.param.signal == SIGKILL ? "_SIGKILL" : "_SIGSTOP");
}

class LosingARank : public testing::TestWithParam<loss> {
 protected:
  LosingARank() : gang_({"--tensor-parallel-size", "2"}) {}

  // Brings the gang into the phase in which it is hit.
  void enter_phase() {
    const std::string phase = GetParam().phase;
    if (phase == "boot") {
      ASSERT_TRUE(wait_until([&] { return gang_.process_of(GetParam().rank) != 0; }));
      return;
    }
    ASSERT_TRUE(gang_.ready_within()) << gang_.log();
    if (phase == "idle") return;
    body_ = completion_body(2000);
    if (phase == "prefill") {
      body_["prompt"] = std::vector<int>(3000, 5);
      body_["max_tokens"] = 64;
    }
    stream_ = std::make_unique<open_stream>(gang_.url(), body_);
    ASSERT_TRUE(wait_until([&] {
      return phase == "prefill" ? gang_.metric("vllm:num_requests_running") >= 1.0
                                : stream_->pieces() >= 20;
    }));
  }

  void expect_end_of_stream(steady::time_point begin) {
    stream_->join();
    if (GetParam().rank == 0) {
      EXPECT_LT(stream_->ended() - begin, notice_max());
      // A prefill may have been over before the signal reached it.
      EXPECT_TRUE(stream_->done() || stream_->failed());
      return;
    }
    EXPECT_TRUE(stream_->done()) << stream_->error() << gang_.log();
    EXPECT_EQ(stream_->errors(), 0);
    open_stream undisturbed(gang_.url(), body_);
    undisturbed.join();
    EXPECT_TRUE(undisturbed.done()) << undisturbed.error();
    EXPECT_EQ(stream_->text(), undisturbed.text());
  }

  served_gang gang_;
  json body_;
  std::unique_ptr<open_stream> stream_;
};

TEST_P(LosingARank, IsNoticedAndMended) {
  enter_phase();
  if (HasFatalFailure()) return;
  const int other = 1 - GetParam().rank;
  const pid_t hit = gang_.process_of(GetParam().rank);
  const pid_t survivor = gang_.process_of(other);
  ASSERT_NE(hit, 0);
  const std::size_t epochs = gang_.events("ready").size();
  ASSERT_EQ(::kill(hit, GetParam().signal), 0);
  const auto begin = steady::now();
  EXPECT_TRUE(wait_until(
      [&] {
        const pid_t now = gang_.process_of(GetParam().rank);
        return now != 0 && now != hit;
      },
      notice_max()))
      << "the rank was not started again";
  // The rank may be started again before the leader hears of its loss: of the next epoch.
  ASSERT_TRUE(wait_until([&] { return gang_.events("ready").size() > epochs; })) << gang_.log();
  ASSERT_TRUE(gang_.ready_within()) << gang_.log();
  if (survivor != 0 && std::string(GetParam().phase) != "boot") {
    EXPECT_EQ(gang_.process_of(other), survivor) << "the survivor did not keep its process";
  }
  if (stream_) expect_end_of_stream(begin);
  open_stream again(gang_.url(), completion_body(40));
  again.join();
  EXPECT_TRUE(again.done()) << again.error();
}

std::vector<loss> every_loss() {
  std::vector<loss> all;
  for (const char* phase : {"boot", "idle", "prefill", "decode"}) {
    for (const int rank : {0, 1}) {
      for (const int signal : {SIGKILL, SIGSTOP}) all.push_back({phase, rank, signal});
    }
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(EveryPhase, LosingARank, testing::ValuesIn(every_loss()), name_of);

TEST(LosingRanks, GiveTheSameTokensAfterARepairAsBefore) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  open_stream before(gang.url(), completion_body(60));
  before.join();
  ASSERT_TRUE(before.done());
  ASSERT_TRUE(gang.send_signal(1, SIGKILL));
  ASSERT_TRUE(wait_until([&] { return gang.metric("troupe_repairs_total") >= 1.0; }));
  ASSERT_TRUE(gang.ready_within());
  open_stream after(gang.url(), completion_body(60));
  after.join();
  ASSERT_TRUE(after.done());
  EXPECT_EQ(after.text(), before.text());
}

// Each survivor says on its own that it leaves; only the first of all that is said is news.
TEST(LosingRanks, CountWhatStillComesOfAnEpochThatIsOver) {
  served_gang gang({"--tensor-parallel-size", "4"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  EXPECT_EQ(gang.metric("troupe_stale_messages_dropped_total"), 0.0);
  ASSERT_TRUE(gang.send_signal(3, SIGKILL));
  ASSERT_TRUE(wait_until([&] { return gang.metric("troupe_repairs_total") >= 1.0; }));
  ASSERT_TRUE(gang.ready_within());
  EXPECT_GE(gang.metric("troupe_stale_messages_dropped_total"), 1.0);
  EXPECT_EQ(gang.metric("troupe_repairs_total"), 1.0) << "what is stale has no effect";
}

TEST(LosingRanks, EndsWithFourWhenARankIsLostTooOften) {
  served_gang gang({"--tensor-parallel-size", "2", "--max-restarts", "1"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const pid_t first = gang.process_of(1);
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  ASSERT_TRUE(wait_until([&] { return gang.process_of(1) != first && gang.process_of(1) != 0; }));
  ASSERT_TRUE(gang.ready_within());
  ASSERT_TRUE(gang.send_signal(1, SIGKILL));
  EXPECT_EQ(gang.wait(), 4);
  EXPECT_NE(gang.log().find("rank 1"), std::string::npos);
}

TEST(LosingRanks, LeavesNoProcessWhenTheSupervisorIsKilled) {
  served_gang gang({"--tensor-parallel-size", "4"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const auto ranks = gang.ranks();
  ASSERT_EQ(ranks.size(), 4U);
  ASSERT_EQ(::kill(ranks[2], SIGSTOP), 0);  // a stopped one goes too
  ASSERT_EQ(::kill(gang.supervisor(), SIGKILL), 0);
  EXPECT_TRUE(wait_until(
      [&] {
        for (const pid_t rank : ranks) {
          if (is_alive(rank)) return false;
        }
        return true;
      },
      notice_max()));
}

TEST(LosingRanks, EndsAOneShotCommandWithFour) {
  const cli::test::temporary_folder folder;
  auto child =
      base::spawn({.program = TROUPE_BINARY,
                   .arguments = {"troupe", "generate", "demo", "--prompt", "A gang", "--max-tokens",
                                 "4000", "--ignore-eos", "--tensor-parallel-size", "2"},
                   .descriptors = {},
                   .null_input = true});
  ASSERT_TRUE(child);
  const std::string parent = std::to_string(child->id);
  ASSERT_TRUE(wait_until([&] {
    return processes_with({"--node-rank", "1", "--parent", parent}).size() == 1;
  }));
  ::kill(processes_with({"--node-rank", "1", "--parent", parent}).front(), SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child->id, &status, 0), child->id);
  EXPECT_EQ(WEXITSTATUS(status), 4);
}

TEST(LosingRanks, EightRanksOnFewCoresRaiseNoFalseAlarm) {
  served_gang gang({"--tensor-parallel-size", "8"});
  ASSERT_TRUE(gang.ready_within(120s)) << gang.log();
  open_stream stream(gang.url(), completion_body(300));
  stream.join();
  EXPECT_TRUE(stream.done()) << stream.error() << gang.log();
  EXPECT_EQ(gang.metric("troupe_repairs_total"), 0.0) << gang.log();
}

}  // namespace
}  // namespace troupe::gang_test
