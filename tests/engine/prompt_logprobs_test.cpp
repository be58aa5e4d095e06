// How likely the model takes each token of a prompt to be: the same figures as when it is made to
// say that token, whatever the cut of the work.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/engine.hpp"
#include "kernels/numerics.hpp"
#include "tests/golden/forced_run.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::engine {
namespace {

using golden::must;

class PromptLogprobs : public testing::Test {
 protected:
  golden::loaded_model model_{golden::models_folder() / "qwen2_window_mixed"};
  kernels::numerics_profile profile_ = golden::profile_of(
      kernels::supported_paths(kernels::dtype::float32).front(), kernels::dtype::float32);

  std::vector<std::int32_t> prompt(std::size_t tokens, unsigned seed = 5) const {
    std::mt19937 random(seed);
    std::vector<std::int32_t> ids(tokens);
    for (std::int32_t& id : ids) {
      id = static_cast<std::int32_t>(random() % static_cast<unsigned>(model_.config().vocab_size));
    }
    return ids;
  }

  static sequence_log asking(std::vector<std::int32_t> ids, std::int32_t logprobs,
                             std::int64_t max_tokens = 2) {
    sampling_params params = golden::greedy_params(max_tokens);
    params.prompt_logprobs = logprobs;
    return golden::log_of(std::move(params), std::move(ids));
  }

  static std::vector<sampled_token> scores_of(engine& of, base::sequence_id id) {
    std::vector<sampled_token> scores;
    int tokens = 0;
    while (!of.idle()) {
      for (engine_event& event : must(of.step())) {
        if (event.token.sequence != id) continue;
        if (tokens++ > 0) {
          EXPECT_TRUE(event.prompt_logprobs.empty());
        }
        for (sampled_token& score : event.prompt_logprobs) scores.push_back(std::move(score));
      }
    }
    return scores;
  }

  static void expect_equal(const std::vector<sampled_token>& a,
                           const std::vector<sampled_token>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].token_id, b[i].token_id) << "position " << i;
      EXPECT_EQ(a[i].logprob, b[i].logprob) << "position " << i;
      ASSERT_EQ(a[i].top.size(), b[i].top.size()) << "position " << i;
      for (std::size_t k = 0; k < a[i].top.size(); ++k) {
        EXPECT_EQ(a[i].top[k].token_id, b[i].top[k].token_id) << "position " << i;
        EXPECT_EQ(a[i].top[k].logprob, b[i].top[k].logprob) << "position " << i;
      }
    }
  }
};

// The reference decodes the prompt token by token and asks for the whole distribution each time.
TEST_F(PromptLogprobs, AreThoseOfADecodeThatIsMadeToSayThePrompt) {
  const auto ranks = model_.start(profile_);
  const auto ids = prompt(45);
  const std::vector<std::int32_t> rest(ids.begin() + 1, ids.end());
  const auto expected = golden::forced_run(*ranks, model_.config(), {ids[0]}, rest);
  engine engine(*ranks, model_.options());
  const auto id = must(engine.add(asking(ids, 4)));
  const auto scores = scores_of(engine, id);
  ASSERT_EQ(scores.size(), 44U);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const auto& row = expected[i];
    EXPECT_EQ(scores[i].token_id, ids[i + 1]);
    EXPECT_EQ(scores[i].logprob, row[static_cast<std::size_t>(ids[i + 1])]) << "position " << i;
    ASSERT_EQ(scores[i].top.size(), 4U);
    EXPECT_EQ(scores[i].top[0].logprob, *std::max_element(row.begin(), row.end()));
    for (const token_logprob& top : scores[i].top) {
      EXPECT_EQ(top.logprob, row[static_cast<std::size_t>(top.token_id)]);
    }
  }
}

TEST_F(PromptLogprobs, AreTheSameOverAnyCutOfTheWork) {
  const auto ids = prompt(75);
  const auto one = model_.start(profile_);
  engine plain(*one, model_.options());
  const auto expected = scores_of(plain, must(plain.add(asking(ids, 2))));
  for (const golden::run_shape& shape :
       {golden::run_shape{.tp_size = 2, .chunk = 16}, golden::run_shape{.chunk = 1},
        golden::run_shape{.pp_size = 2, .chunk = 7},
        golden::run_shape{.tp_size = 2, .pp_size = 2, .chunk = 33, .plan_ahead = false}}) {
    SCOPED_TRACE(testing::Message() << shape);
    const auto ranks = model_.start(profile_, shape);
    engine cut(*ranks, model_.options(shape));
    expect_equal(scores_of(cut, must(cut.add(asking(ids, 2)))), expected);
  }
}

// Preempted in the middle of its prompt, its figures come once and are the same; nothing of it is
// taken from the cache, which has no logits.
TEST_F(PromptLogprobs, ComeOnceAlsoAfterAPreemptionAndBesideACache) {
  const auto ids = prompt(100);
  const auto ranks = model_.start(profile_);
  engine plain(*ranks, model_.options());
  const auto expected = scores_of(plain, must(plain.add(asking(ids, 1, 20))));
  engine_options options = model_.options({.chunk = 8, .kv_blocks = 9});
  options.planner.prefix_cache.enabled = true;
  engine tight(*ranks, options);
  must(tight.add(golden::log_of(golden::greedy_params(60), prompt(40, 6))));
  const auto scored = must(tight.add(asking(ids, 1, 20)));
  expect_equal(scores_of(tight, scored), expected);
  EXPECT_GT(tight.preemptions(), 0U);
  const auto again = must(tight.add(asking(ids, 1, 20)));
  expect_equal(scores_of(tight, again), expected);
}

TEST_F(PromptLogprobs, OnlyChoiceZeroHasThem) {
  const auto ranks = model_.start(profile_);
  engine engine(*ranks, model_.options());
  sequence_log log = asking(prompt(20), 1);
  log.params.choice = 1;
  EXPECT_TRUE(scores_of(engine, must(engine.add(log))).empty());
}

TEST_F(PromptLogprobs, MoreThanTwentyAreRefused) {
  sampling_params params;
  params.prompt_logprobs = 21;
  const auto checked = check_params(params);
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().message, "prompt_logprobs is 21, allowed: 0 to 20");
}

}  // namespace
}  // namespace troupe::engine
