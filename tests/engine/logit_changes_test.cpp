#include "engine/logit_changes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/golden/model_runs.hpp"

namespace troupe::engine {
namespace {

using testing::ElementsAre;

std::vector<float> changed(std::vector<float> logits, const logit_changes& changes,
                           std::int32_t first = 0) {
  apply(changes, first, logits);
  return logits;
}

TEST(LogitChanges, NothingAskedForChangesNothing) {
  EXPECT_THAT(changed({1, -2, 3}, {}), ElementsAre(1, -2, 3));
}

TEST(LogitChanges, BiasIsAddedAndIdsOfOtherRanksAreLeftToThem) {
  const logit_changes changes{.bias = {{10, 5}, {12, -1}, {99, 7}, {3, 7}}};
  EXPECT_THAT(changed({1, 2, 3}, changes, 10), ElementsAre(6, 2, 2));
}

TEST(LogitChanges, RepetitionDividesWhatIsPositiveAndMultipliesWhatIsNegative) {
  const logit_changes changes{.repetition_penalty = 2.0F, .counts = {{0, 0}, {1, 3}}};
  EXPECT_THAT(changed({4, -4, 4}, changes), ElementsAre(2, -8, 4));
}

TEST(LogitChanges, FrequencyCountsAndPresenceDoesNotAndThePromptCountsForNeither) {
  const logit_changes changes{
      .frequency_penalty = 0.5F, .presence_penalty = 1.0F, .counts = {{0, 0}, {1, 1}, {2, 4}}};
  EXPECT_THAT(changed({10, 10, 10, 10}, changes), ElementsAre(10, 8.5F, 7, 10));
}

TEST(LogitChanges, WhatIsForbiddenStaysForbiddenWhateverItsBias) {
  const logit_changes changes{.bias = {{1, 100}}, .forbidden = {1}, .allowed = {0b0111}};
  EXPECT_THAT(changed({1, 2, 3, 4}, changes), ElementsAre(1, forbidden_logit, 3, forbidden_logit));
}

TEST(LogitChanges, TokensBehindTheMaskAreForbidden) {
  const logit_changes changes{.allowed = {0x80000000U}};
  EXPECT_THAT(changed({1, 2, 3}, changes, 30), ElementsAre(forbidden_logit, 2, forbidden_logit));
}

sequence_log log_with(logit_params params) {
  sequence_log log;
  log.prompt_ids = {5, 6, 5};
  log.params.logits = std::make_shared<logit_params>(std::move(params));
  return log;
}

TEST(LogitChangeSource, IsIdleWithoutParametersAndWithNeutralOnes) {
  EXPECT_FALSE(logit_change_source(sequence_log{}, {}).active());
  EXPECT_FALSE(logit_change_source(log_with({}), {}).active());
}

TEST(LogitChangeSource, CountsWhatEachPenaltyLooksAt) {
  sequence_log log = log_with({.repetition_penalty = 1.5F});
  log.emitted_ids = {6, 7};
  EXPECT_THAT(logit_change_source(log, {}).next(log).counts,
              ElementsAre(schemas::token_count{5, 0}, schemas::token_count{6, 1},
                          schemas::token_count{7, 1}));
  log = log_with({.frequency_penalty = 1.0F});
  log.emitted_ids = {6, 7, 6};
  EXPECT_THAT(logit_change_source(log, {}).next(log).counts,
              ElementsAre(schemas::token_count{6, 2}, schemas::token_count{7, 1}));
  log = log_with({.logit_bias = {{1, 1.0F}}});
  log.emitted_ids = {6};
  EXPECT_THAT(logit_change_source(log, {}).next(log).counts, testing::IsEmpty());
}

TEST(LogitChangeSource, ALogThatGrowsCountsAsOneThatIsGiven) {
  sequence_log log = log_with({.frequency_penalty = 1.0F, .repetition_penalty = 1.1F});
  logit_change_source growing(log, {});
  for (const std::int32_t id : {9, 5, 9, 1, 9}) {
    log.emitted_ids.push_back(id);
    growing.accept(id);
    EXPECT_EQ(growing.next(log).counts, logit_change_source(log, {}).next(log).counts);
  }
}

TEST(LogitChangeSource, HoldsTheLastTokenOfABadWordBackOnceTheOthersStandThere) {
  sequence_log log = log_with({.bad_words = {{7}, {8, 9}, {1, 2, 3}}});
  const auto forbidden = [&log](std::vector<std::int32_t> emitted) {
    log.emitted_ids = std::move(emitted);
    return logit_change_source(log, {}).next(log).forbidden;
  };
  EXPECT_THAT(forbidden({}), ElementsAre(7));
  EXPECT_THAT(forbidden({8}), ElementsAre(7, 9));
  EXPECT_THAT(forbidden({8, 1}), ElementsAre(7));
  EXPECT_THAT(forbidden({1, 2}), ElementsAre(7, 3));
}

TEST(LogitChangeSource, NoEndAndNoStopTokenBeforeMinTokens) {
  sequence_log log = log_with({.min_tokens = 2});
  log.params.stop_token_ids = {40};
  const std::vector<std::int32_t> eos{2, 3};
  EXPECT_THAT(logit_change_source(log, eos).next(log).forbidden, ElementsAre(2, 3, 40));
  log.emitted_ids = {1, 1};
  EXPECT_THAT(logit_change_source(log, eos).next(log).forbidden, testing::IsEmpty());
}

// On a real model, over ranks.
class ChangedLogits : public testing::Test {
 protected:
  golden::loaded_model model_{golden::models_folder() / "llama_plain"};
  kernels::numerics_profile profile_ = golden::profile_of(
      kernels::supported_paths(kernels::dtype::float32).front(), kernels::dtype::float32);

  static sequence_log asked(logit_params params, float temperature = 0.0F) {
    sequence_log log = golden::log_of(golden::greedy_params(24), {3, 1, 4, 1, 5, 9, 2, 6});
    log.params.temperature = temperature;
    log.params.seed = 11;
    log.params.logprobs = 4;
    log.params.logits = std::make_shared<logit_params>(std::move(params));
    return log;
  }

  static std::vector<sequence_log> all_kinds() {
    std::vector<sequence_log> logs;
    for (const float temperature : {0.0F, 1.2F}) {
      logs.push_back(asked({}, temperature));
      logs.push_back(asked({.presence_penalty = 1.5F, .frequency_penalty = 0.7F}, temperature));
      logs.push_back(asked({.repetition_penalty = 1.4F}, temperature));
      logs.push_back(asked({.logit_bias = {{17, 3.0F}, {200, -100.0F}}}, temperature));
      logs.push_back(asked({.allowed_token_ids = {0, 31, 32, 33, 100, 128, 255}}, temperature));
      logs.push_back(logs.back());
      logs.back().params.top_p = 0.7F;
      logs.push_back(logs[logs.size() - 5]);
      logs.back().params.min_p = 0.2F;
    }
    return logs;
  }
};

TEST_F(ChangedLogits, AreTheSameBitsOverAnyNumberOfRanksAndAloneOrTogether) {
  const std::vector<sequence_log> logs = all_kinds();
  const auto one = model_.start(profile_);
  std::vector<golden::completion> alone;
  for (const sequence_log& log : logs) {
    alone.push_back(golden::complete(*one, model_.options(), {log})[0]);
  }
  for (const int tp_size : {1, 2, 4}) {
    const auto ranks = model_.start(profile_, {.tp_size = tp_size});
    const auto together = golden::complete(*ranks, model_.options({.chunk = 5}), logs);
    for (std::size_t i = 0; i < logs.size(); ++i) {
      EXPECT_EQ(together[i].tokens, alone[i].tokens) << "kind " << i << " over " << tp_size;
    }
  }
}

TEST_F(ChangedLogits, GoOnFromALog) {
  const auto ranks = model_.start(profile_);
  for (const sequence_log& log : all_kinds()) {
    const auto whole = golden::complete(*ranks, model_.options(), {log})[0];
    sequence_log rebuilt = log;
    for (std::size_t i = 0; i < 13; ++i) rebuilt.emitted_ids.push_back(whole.tokens[i].token_id);
    const auto rest = golden::complete(*ranks, model_.options(), {rebuilt})[0];
    EXPECT_TRUE(std::equal(rest.tokens.begin(), rest.tokens.end(), whole.tokens.begin() + 13));
  }
}

TEST_F(ChangedLogits, LogprobsStayThoseOfTheModel) {
  const auto ranks = model_.start(profile_);
  const auto plain = golden::complete(*ranks, model_.options(), {asked({})})[0];
  const std::int32_t first = plain.tokens[0].token_id;
  const auto pushed =
      golden::complete(*ranks, model_.options(), {asked({.logit_bias = {{first, -100.0F}}})})[0];
  EXPECT_NE(pushed.tokens[0].token_id, first);
  EXPECT_EQ(pushed.tokens[0].token_id, plain.tokens[0].top[1].token_id) << "the second best";
  ASSERT_EQ(pushed.tokens[0].top.size(), 4U);
  EXPECT_EQ(pushed.tokens[0].top[0].token_id, first);
  EXPECT_EQ(pushed.tokens[0].logprob, plain.tokens[0].top[1].logprob);
  EXPECT_EQ(pushed.tokens[0].top[0].logprob, plain.tokens[0].top[0].logprob);
}

TEST_F(ChangedLogits, OnlyAllowedTokensCome) {
  const auto ranks = model_.start(profile_, {.tp_size = 2});
  const std::vector<std::int32_t> allowed{7, 130, 254};
  for (const float temperature : {0.0F, 1.0F, 2.0F}) {
    const auto done = golden::complete(*ranks, model_.options(),
                                       {asked({.allowed_token_ids = allowed}, temperature)})[0];
    for (const auto& token : done.tokens) EXPECT_THAT(allowed, testing::Contains(token.token_id));
  }
}

TEST_F(ChangedLogits, ForbiddingEverythingEndsThatSequenceAlone) {
  const auto ranks = model_.start(profile_);
  engine engine(*ranks, model_.options());
  std::vector<std::vector<std::int32_t>> all;
  for (std::int32_t id = 0; id < model_.config().vocab_size; ++id) all.push_back({id});
  const auto none = golden::must(engine.add(asked({.bad_words = all})));
  const auto other = golden::must(engine.add(asked({})));
  const auto events = golden::must(engine.step());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].token.sequence, none);
  ASSERT_TRUE(events[0].failed.has_value());
  EXPECT_EQ(events[0].failed->code, base::error_code::invalid_argument);
  EXPECT_EQ(events[1].token.sequence, other);
  EXPECT_FALSE(events[1].failed.has_value());
  EXPECT_EQ(engine.sequences(), 1U);
}

TEST_F(ChangedLogits, MinTokensHoldsTheEndBack) {
  const auto ranks = model_.start(profile_);
  sequence_log log = asked({.logit_bias = {{0, 100.0F}}, .min_tokens = 9});
  log.params.ignore_eos = false;
  engine_options options = model_.options();
  options.eos_token_ids = {0};
  const auto done = golden::complete(*ranks, options, {log})[0];
  ASSERT_EQ(done.tokens.size(), 10U);
  EXPECT_EQ(done.tokens.back().token_id, 0);
  EXPECT_EQ(done.finished, finish_reason::stop);
}

}  // namespace
}  // namespace troupe::engine
