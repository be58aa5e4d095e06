// The step loop over real ranks and real (tiny) models: nothing here is a stand-in.
#include "engine/engine.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>

#include "kernels/numerics.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::engine {
namespace {

using golden::completion;
using golden::loaded_model;
using golden::log_of;
using golden::must;
using golden::run_shape;

std::filesystem::path folder_of(const std::string& name) { return golden::models_folder() / name; }

kernels::numerics_profile fastest(kernels::dtype type) {
  return golden::profile_of(kernels::supported_paths(type).front(), type);
}

std::vector<std::int32_t> prompt_of(std::size_t tokens, std::int64_t vocabulary, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids(tokens);
  for (std::int32_t& id : ids) {
    id = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
  }
  return ids;
}

// Greedy, plain sampling, and cut by top_k and top_p.
sampling_params params_of(unsigned kind, std::int64_t max_tokens) {
  sampling_params params = golden::greedy_params(max_tokens);
  params.logprobs = 3;
  params.seed = 77 + kind;
  params.temperature = kind % 4 == 0 ? 0.0F : 0.9F;
  if (kind % 4 == 2) params.top_p = 0.8F;
  if (kind % 4 == 3) params.top_k = 12;
  return params;
}

class EngineOnAModel : public testing::TestWithParam<const char*> {};

// A gang that loses a rank goes on from the logs: it must not be seen in the tokens.
TEST_P(EngineOnAModel, ALogGoesOnWithTheSameBitsFromAnyToken) {
  const loaded_model model(folder_of(GetParam()));
  for (const kernels::dtype type : {kernels::dtype::float32, kernels::dtype::bfloat16}) {
    const auto ranks = model.start(fastest(type));
    for (unsigned kind = 0; kind < 4; ++kind) {
      const sequence_log log =
          log_of(params_of(kind, 40), prompt_of(21, model.config().vocab_size, kind));
      const completion whole = golden::complete(*ranks, model.options(), {log})[0];
      ASSERT_EQ(whole.tokens.size(), 40U);
      for (std::size_t at = 1; at < whole.tokens.size(); ++at) {
        sequence_log rebuilt = log;
        for (std::size_t i = 0; i < at; ++i) {
          rebuilt.emitted_ids.push_back(whole.tokens[i].token_id);
        }
        const run_shape shape{.chunk = at % 3 == 0 ? 512 : 16};
        const completion rest = golden::complete(*ranks, model.options(shape), {rebuilt})[0];
        ASSERT_EQ(rest.tokens.size(), whole.tokens.size() - at);
        for (std::size_t i = 0; i < rest.tokens.size(); ++i) {
          ASSERT_EQ(rest.tokens[i], whole.tokens[at + i])
              << to_string(type) << " kind " << kind << " rebuilt at " << at << " token " << i;
        }
      }
    }
  }
}

TEST_P(EngineOnAModel, SequencesThatFightForBlocksGetTheTokensTheyHaveAlone) {
  const loaded_model model(folder_of(GetParam()));
  const auto ranks = model.start(fastest(kernels::dtype::float32), {.kv_blocks = 64});
  std::vector<sequence_log> logs;
  std::vector<completion> alone;
  for (unsigned i = 0; i < 8; ++i) {
    logs.push_back(
        log_of(params_of(i, 20 + 5 * i), prompt_of(3 + 9 * i, model.config().vocab_size, 100 + i)));
    alone.push_back(golden::complete(*ranks, model.options(), {logs.back()})[0]);
  }
  // The longest has 66 + 55 positions: 8 blocks. Together they want 40.
  const run_shape shape{.chunk = 24, .kv_blocks = 9};
  engine engine(*ranks, model.options(shape));
  std::vector<base::sequence_id> ids;
  for (const sequence_log& log : logs) ids.push_back(must(engine.add(log)));
  auto together = golden::drain(engine);
  EXPECT_GT(engine.preemptions(), 0U) << "the pool was not tight";
  EXPECT_EQ(engine.free_blocks(), 9);
  for (std::size_t i = 0; i < logs.size(); ++i) {
    EXPECT_EQ(together[ids[i].value].tokens, alone[i].tokens) << "sequence " << i;
    EXPECT_EQ(together[ids[i].value].finished, finish_reason::length);
  }
}

TEST_P(EngineOnAModel, RemovingSequencesInBetweenLeavesTheOthersAlone) {
  const loaded_model model(folder_of(GetParam()));
  const auto ranks = model.start(fastest(kernels::dtype::float32));
  const sequence_log kept = log_of(params_of(3, 30), prompt_of(40, model.config().vocab_size, 5));
  const completion alone = golden::complete(*ranks, model.options(), {kept})[0];

  engine engine(*ranks, model.options({.chunk = 16}));
  std::vector<base::sequence_id> others;
  for (unsigned i = 0; i < 4; ++i) {
    others.push_back(
        must(engine.add(log_of(params_of(i, 50), prompt_of(20, model.config().vocab_size, i)))));
  }
  const base::sequence_id id = must(engine.add(kept));
  std::vector<golden::token_bits> tokens;
  while (!engine.idle()) {
    for (engine_event& event : must(engine.step())) {
      ASSERT_FALSE(event.failed.has_value());
      if (event.token.sequence != id) continue;
      tokens.push_back({event.token.token_id, event.token.logprob, event.token.top});
    }
    if (engine.steps() % 3 == 0 && !others.empty()) {
      EXPECT_NE(engine.log(others.back()), nullptr);
      EXPECT_TRUE(engine.remove(others.back()));
      EXPECT_FALSE(engine.remove(others.back()));
      EXPECT_EQ(engine.log(others.back()), nullptr);
      others.pop_back();
    }
  }
  EXPECT_EQ(tokens, alone.tokens);
  EXPECT_EQ(engine.free_blocks(), 512);
}

// Hits of every length, among others, in a pool that is tight and in one that is not.
TEST_P(EngineOnAModel, ACachedBeginningGivesTheTokensOfAComputedOne) {
  const loaded_model model(folder_of(GetParam()));
  for (const kernels::dtype type : {kernels::dtype::float32, kernels::dtype::bfloat16}) {
    const auto ranks = model.start(fastest(type), {.tp_size = 2, .kv_blocks = 64});
    const std::vector<std::int32_t> shared = prompt_of(64, model.config().vocab_size, 9);
    std::vector<sequence_log> logs;
    std::vector<completion> alone;
    for (unsigned i = 0; i < 14; ++i) {
      // Beginnings of the shared text: some whole, some with an end of their own.
      std::vector<std::int32_t> ids(shared.begin(), shared.begin() + 64 - 8 * (i / 2 % 5));
      const auto own = prompt_of(i % 2 == 0 ? 0 : 1 + i, model.config().vocab_size, 50 + i);
      ids.insert(ids.end(), own.begin(), own.end());
      logs.push_back(log_of(params_of(i, 12 + 3 * i), ids));
      alone.push_back(golden::complete(*ranks, model.options(), {logs.back()})[0]);
    }
    for (const std::int64_t blocks : {9, 64}) {
      engine_options options = model.options({.chunk = 24, .kv_blocks = blocks});
      options.planner.prefix_cache = {
          .enabled = true,
          .depends_on_length = model.config().rope.type == models::rope_type::dynamic};
      engine engine(*ranks, options);
      for (int round = 0; round < 2; ++round) {
        std::vector<base::sequence_id> ids;
        for (const sequence_log& log : logs) ids.push_back(must(engine.add(log)));
        auto together = golden::drain(engine);
        for (std::size_t i = 0; i < logs.size(); ++i) {
          EXPECT_EQ(together[ids[i].value].tokens, alone[i].tokens)
              << to_string(type) << " blocks " << blocks << " round " << round << " log " << i;
        }
      }
      EXPECT_GT(engine.prefixes().hit, 0U);
      EXPECT_EQ(engine.free_blocks(), blocks);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineOnAModel,
                         testing::Values("llama_group_3", "qwen2_window_mixed", "mistral_window_7",
                                         "llama_rope_dynamic"),
                         [](const auto& of) { return std::string(of.param); });

class Engine : public testing::Test {
 protected:
  loaded_model model_{folder_of("llama_plain")};
  std::unique_ptr<thread_executor> ranks_ =
      model_.start(fastest(kernels::dtype::float32), {.kv_blocks = 8});
  engine_options options_ = [this] {
    engine_options options = model_.options({.kv_blocks = 8});
    options.max_model_len = 200;
    return options;
  }();

  std::string refusal(const sequence_log& log, base::error_code code) {
    engine engine(*ranks_, options_);
    const auto added = engine.add(log);
    if (added) return "accepted";
    EXPECT_EQ(added.error().code, code);
    EXPECT_TRUE(engine.idle());
    return added.error().message;
  }
};

TEST_F(Engine, RefusesARequestThatCannotBeRunSayingWhy) {
  const auto wrong = base::error_code::invalid_argument;
  const auto log = [](std::vector<std::int32_t> prompt_ids) {
    return log_of(golden::greedy_params(4), std::move(prompt_ids));
  };
  EXPECT_EQ(refusal(log({}), wrong), "the prompt has no tokens");
  EXPECT_EQ(refusal(log_of(golden::greedy_params(0), {1}), wrong),
            "max_tokens is 0, allowed: 1 or more");
  EXPECT_EQ(refusal(log({1, 256}), wrong),
            "token id 256 at position 1 is outside the vocabulary of 256");
  EXPECT_EQ(refusal(log({-1}), wrong),
            "token id -1 at position 0 is outside the vocabulary of 256");
  sequence_log resumed = log({1});
  resumed.emitted_ids = {300};
  EXPECT_EQ(refusal(resumed, wrong), "token id 300 at position 1 is outside the vocabulary of 256");
  resumed.emitted_ids = {1, 2, 3, 4};
  EXPECT_EQ(refusal(resumed, wrong), "the sequence has ended already");
  EXPECT_EQ(refusal(log(prompt_of(200, 256, 1)), wrong),
            "the prompt has 200 tokens; max_model_len is 200 and must leave room for one more");
}

TEST_F(Engine, RefusesMorePositionsThanTheCacheHolds) {
  EXPECT_EQ(refusal(log_of(golden::greedy_params(100), prompt_of(60, 256, 1)),
                    base::error_code::resource_exhausted),
            "a sequence of 160 positions does not fit the KV cache of 8 blocks of 16; give more "
            "--kv-cache-memory or fewer max_tokens");
}

TEST_F(Engine, TheLargestMaxTokensIsCutAtTheModelsLength) {
  options_.max_model_len = 30;
  const sequence_log log = log_of(golden::greedy_params(std::numeric_limits<std::int64_t>::max()),
                                  prompt_of(20, 256, 3));
  const auto done = golden::complete(*ranks_, options_, {log});
  EXPECT_EQ(done[0].tokens.size(), 10U);
  EXPECT_EQ(done[0].finished, finish_reason::length);
}

TEST_F(Engine, RefusesMoreSequencesThanItsQueueHoldsAndTakesThemLater) {
  options_.max_queued_seqs = 2;
  engine engine(*ranks_, options_);
  const sequence_log log = log_of(golden::greedy_params(1), {1, 2});
  must(engine.add(log));
  must(engine.add(log));
  const auto third = engine.add(log);
  ASSERT_FALSE(third.has_value());
  EXPECT_EQ(third.error().code, base::error_code::resource_exhausted);
  EXPECT_EQ(third.error().message, "the queue is full: 2 sequences are waiting or running");
  EXPECT_TRUE(third.error().retryable);
  golden::drain(engine);
  EXPECT_TRUE(engine.add(log).has_value());
}

TEST_F(Engine, AnIdleEngineStepsWithoutWork) {
  engine engine(*ranks_, options_);
  EXPECT_TRUE(engine.idle());
  EXPECT_TRUE(must(engine.step()).empty());
  EXPECT_EQ(engine.steps(), 0U);
}

TEST_F(Engine, APlanOfAnotherEpochIsAbortedBeforeAnythingIsWritten) {
  step_plan plan{.epoch = ranks_->epoch(), .step = 0, .sequences = {}};
  ++plan.epoch.number;
  planned_rows rows;
  rows.sequence = base::sequence_id{1};
  rows.prompt_length = 1;
  rows.token_ids = {1};
  rows.block_tables = {{0}};
  rows.sample = sample_request{};
  plan.sequences.push_back(rows);
  const auto refused = ranks_->run(plan);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::aborted);
  EXPECT_NE(refused.error().message.find("out of date"), std::string::npos);
  const auto dead = ranks_->run(plan);
  ASSERT_FALSE(dead.has_value());
  EXPECT_EQ(dead.error().code, base::error_code::failed_precondition);
}

TEST_F(Engine, ChoicesOfOneRequestDifferAndEqualSeedsDoNot) {
  sequence_log log = log_of(golden::greedy_params(20), prompt_of(9, 256, 4));
  log.params.temperature = 1.5F;
  log.params.seed = 5;
  std::vector<sequence_log> logs{log, log, log};
  logs[1].params.choice = 1;
  const auto done = golden::complete(*ranks_, options_, logs);
  EXPECT_NE(done[0].tokens, done[1].tokens);
  EXPECT_EQ(done[0].tokens, done[2].tokens);
}

}  // namespace
}  // namespace troupe::engine
