#include "engine/step_recorder.hpp"

#include <gtest/gtest.h>

namespace troupe::engine {
namespace {

// A queue that records by counting.
class counting_queue final : public kernels::queue {
 public:
  class count final : public kernels::recording {
   public:
    explicit count(counting_queue& of) : of_(of), generation_(of.generation) {}
    bool current() const noexcept override { return generation_ == of_.generation; }
    base::result<void> replay() override {
      ++of_.replays;
      return {};
    }

   private:
    counting_queue& of_;
    int generation_;
  };
  bool can_record() const noexcept override { return true; }
  base::result<void> begin_recording() override {
    ++recordings;
    return {};
  }
  base::result<std::unique_ptr<kernels::recording>> end_recording() override {
    return std::make_unique<count>(*this);
  }
  int recordings = 0;
  int replays = 0;
  int generation = 0;
};

planned_rows one_token() {
  planned_rows rows;
  rows.token_ids = {1};
  rows.sample = sample_request{};
  return rows;
}

TEST(StepRecorder, RepeatsWhatDecodesOnly) {
  step_plan plan;
  EXPECT_FALSE(step_recorder::repeats(plan));
  plan.sequences = {one_token(), one_token()};
  EXPECT_TRUE(step_recorder::repeats(plan));
  plan.sequences[1].token_ids.push_back(2);
  EXPECT_FALSE(step_recorder::repeats(plan));
  plan.sequences[1] = one_token();
  plan.sequences[1].sample.reset();
  EXPECT_FALSE(step_recorder::repeats(plan));
}

TEST(StepRecorder, RoundsUpToFewShapesAndNeverBeyondItsBound) {
  const step_recorder recorder(100);
  for (std::int64_t sequences = 1; sequences <= 100; ++sequences) {
    const step_shape shape{
        .tokens = sequences, .sequences = sequences, .sampled = sequences, .table_blocks = 65};
    const step_shape rounded = recorder.rounded(shape);
    EXPECT_GE(rounded.sequences, sequences);
    EXPECT_LE(rounded.sequences, 100);
    EXPECT_LE(2 * rounded.sequences, 4 * sequences) << sequences;
    EXPECT_EQ(rounded.tokens, rounded.sequences);
    EXPECT_EQ(rounded.table_blocks, 128);
  }
}

TEST(StepRecorder, RunsFirstRecordsTheSecondTimeAndReplaysFromThen) {
  step_recorder recorder(8);
  counting_queue queue;
  int runs = 0;
  const auto work = [&]() -> base::result<void> {
    ++runs;
    return {};
  };
  const step_recorder::key key{.shape = {.tokens = 1, .sequences = 1, .sampled = 1}};
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(queue.recordings, 0);
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(queue.recordings, 1);
  EXPECT_EQ(queue.replays, 1);
  EXPECT_EQ(runs, 2);
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(queue.replays, 2);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(recorder.replays(), 1U);

  ++queue.generation;  // the queue's memory moved
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(queue.replays, 2);
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(queue.recordings, 2);
  EXPECT_EQ(queue.replays, 3);
}

TEST(StepRecorder, AFailedRecordingIsNotKept) {
  step_recorder recorder(8);
  counting_queue queue;
  bool fails = false;
  const auto work = [&]() -> base::result<void> {
    if (fails) return base::fail(base::error_code::aborted, "test", "over");
    return {};
  };
  const step_recorder::key key{};
  ASSERT_TRUE(recorder.run(key, queue, work));
  fails = true;
  EXPECT_FALSE(recorder.run(key, queue, work));
  fails = false;
  ASSERT_TRUE(recorder.run(key, queue, work));
  EXPECT_EQ(queue.recordings, 2);
  EXPECT_EQ(queue.replays, 1);
}

}  // namespace
}  // namespace troupe::engine
