// The next step is planned and begun before this one's tokens are known: the same tokens, no step
// for nothing, and nothing left behind. Over real ranks and real (tiny) models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include "engine/engine.hpp"
#include "kernels/numerics.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::engine {
namespace {

using golden::completion;
using golden::log_of;
using golden::must;

sequence_log request(unsigned number, std::int64_t vocabulary) {
  std::mt19937 random(number);
  std::vector<std::int32_t> ids(1 + random() % 60);
  for (std::int32_t& id : ids) {
    id = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
  }
  sampling_params params = golden::greedy_params(1 + static_cast<std::int64_t>(random() % 40));
  params.temperature = number % 3 == 0 ? 0.0F : 0.9F;
  params.seed = number;
  params.logprobs = 2;
  // Ends that no plan can foresee.
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(number % 5 * 4); ++id) {
    params.stop_token_ids.push_back(static_cast<std::int32_t>(random() % 256));
  }
  if (number % 4 == 1) {
    params.logits = std::make_shared<const logit_params>(
        logit_params{.presence_penalty = 1.5F, .repetition_penalty = 1.2F, .min_tokens = 3});
  }
  return log_of(std::move(params), std::move(ids));
}

class PlanAhead : public testing::Test {
 protected:
  golden::loaded_model model_{golden::models_folder() / "qwen2_window_mixed"};
  kernels::numerics_profile profile_ = golden::profile_of(
      kernels::supported_paths(kernels::dtype::float32).front(), kernels::dtype::float32);

  std::vector<sequence_log> requests(unsigned count) const {
    std::vector<sequence_log> logs;
    for (unsigned i = 0; i < count; ++i) logs.push_back(request(i, model_.config().vocab_size));
    return logs;
  }

  // The first token of a sequence, sampled.
  planned_rows one_row() const {
    planned_rows rows;
    rows.sequence = base::sequence_id{1};
    rows.prompt_length = 1;
    rows.token_ids = {1};
    rows.block_tables.assign(models::kv_groups(model_.config()).size(), {0});
    rows.sample = sample_request{};
    return rows;
  }
};

TEST_F(PlanAhead, GivesTheTokensOfStepsPlannedOneByOne) {
  const auto logs = requests(40);
  for (const golden::run_shape& shape :
       {golden::run_shape{.tp_size = 1}, golden::run_shape{.tp_size = 2, .chunk = 24},
        golden::run_shape{.pp_size = 2, .kv_blocks = 9},
        golden::run_shape{.tp_size = 2, .pp_size = 2, .chunk = 16, .kv_blocks = 20}}) {
    const auto ranks = model_.start(profile_, shape);
    golden::run_shape one_by_one = shape;
    one_by_one.plan_ahead = false;
    const auto expected = golden::complete(*ranks, model_.options(one_by_one), logs);
    for (const bool cached : {false, true}) {
      engine_options options = model_.options(shape);
      ASSERT_TRUE(options.plan_ahead);
      options.planner.prefix_cache.enabled = cached;
      const auto ahead = golden::complete(*ranks, options, logs);
      for (std::size_t i = 0; i < logs.size(); ++i) {
        EXPECT_EQ(ahead[i].tokens, expected[i].tokens) << shape << " request " << i;
        EXPECT_EQ(ahead[i].finished, expected[i].finished) << shape << " request " << i;
      }
    }
  }
}

TEST_F(PlanAhead, RunsNoStepForALengthThatIsKnown) {
  const auto ranks = model_.start(profile_);
  engine engine(*ranks, model_.options());
  must(engine.add(log_of(golden::greedy_params(7), {1, 2, 3})));
  golden::drain(engine);
  EXPECT_EQ(engine.steps(), 7U);
  EXPECT_TRUE(must(engine.step()).empty());
  EXPECT_EQ(engine.steps(), 7U);
}

TEST_F(PlanAhead, WhatWasPlannedForAnEndedSequenceIsDropped) {
  const auto ranks = model_.start(profile_);
  engine engine(*ranks, model_.options());
  const auto gone = must(engine.add(log_of(golden::greedy_params(30), {1, 2, 3})));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(must(engine.step()).size(), 1U);
  ASSERT_TRUE(engine.remove(gone));
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(engine.free_blocks(), 512);
  // The fourth step runs for nobody; the next sequence is not held up by it, nor does it see it.
  const sequence_log next = log_of(golden::greedy_params(9), {4, 5, 6, 7});
  const auto id = must(engine.add(next));
  const auto alone = golden::complete(*model_.start(profile_), model_.options(), {next});
  EXPECT_EQ(golden::drain(engine)[id.value].tokens, alone[0].tokens);
}

// Passes steps on; holds the one that it is told to until it is let go.
class held_executor final : public executor {
 public:
  explicit held_executor(executor& ranks) : ranks_(ranks) {}
  using executor::run;
  base::result<step_result> run(const step_plan& plan, const changes_source& following) override {
    {
      std::unique_lock lock(mutex_);
      begun_.push_back(plan.step);
      changed_.notify_all();
      changed_.wait(lock, [&] { return plan.step != held_; });
    }
    if (plan.step == failing) {
      return base::fail(base::error_code::unavailable, "test", "a rank is lost");
    }
    return ranks_.run(plan, following);
  }
  base::epoch_id epoch() const noexcept override { return ranks_.epoch(); }

  void hold(std::optional<std::uint64_t> step) {
    const std::scoped_lock lock(mutex_);
    held_ = step;
    changed_.notify_all();
  }
  void await_begin(std::uint64_t step) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !begun_.empty() && begun_.back() >= step; });
  }
  std::optional<std::uint64_t> failing;

 private:
  executor& ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::uint64_t> held_;
  std::vector<std::uint64_t> begun_;
};

TEST_F(PlanAhead, TheNextStepRunsWhileTokensAreLookedAt) {
  const auto ranks = model_.start(profile_);
  held_executor held(*ranks);
  held.hold(2);
  engine engine(held, model_.options());
  must(engine.add(log_of(golden::greedy_params(10), {1, 2, 3})));
  static_cast<void>(must(engine.step()));
  static_cast<void>(must(engine.step()));
  held.await_begin(2);  // hangs if step 2 waited for the next call
  held.hold(std::nullopt);
  EXPECT_EQ(must(engine.step()).size(), 1U);
}

TEST_F(PlanAhead, AStepThatFailsKillsTheEngineAndKeepsTheLogs) {
  const auto ranks = model_.start(profile_);
  held_executor failing(*ranks);
  failing.failing = 4;
  engine engine(failing, model_.options());
  const auto id = must(engine.add(log_of(golden::greedy_params(10), {1, 2, 3})));
  for (int i = 0; i < 4; ++i) static_cast<void>(must(engine.step()));
  for (int i = 0; i < 4; ++i) {
    const auto failed = engine.step();
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().message, "a rank is lost");
  }
  ASSERT_NE(engine.log(id), nullptr);
  EXPECT_EQ(engine.log(id)->emitted_ids.size(), 4U);
}

TEST_F(PlanAhead, RanksRefuseASlotThatTheStepBeforeDoesNotHave) {
  const auto ranks = model_.start(profile_, {.tp_size = 2});
  planned_rows rows = one_row();
  rows.last_token_slot = 0;
  const step_plan plan{.epoch = ranks->epoch(), .step = 0, .sequences = {rows}};
  const auto refused = ranks->run(plan);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::invalid_argument);
  EXPECT_EQ(refused.error().message,
            "the plan begins with token 0 of the step before, which had 0");
}

TEST_F(PlanAhead, RanksRefuseChangesOfAnotherNumberOfRows) {
  const auto ranks = model_.start(profile_, {.tp_size = 2});
  planned_rows rows = one_row();
  rows.sample->changes_follow = true;
  const step_plan plan{.epoch = ranks->epoch(), .step = 0, .sequences = {rows}};
  const auto refused = ranks->run(plan, [] { return std::vector<schemas::logit_changes>(2); });
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message, "changes of 2 rows came, 1 wait for theirs");
}

}  // namespace
}  // namespace troupe::engine
