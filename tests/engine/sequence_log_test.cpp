#include "engine/sequence_log.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace troupe::engine {
namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

// `set` changes the defaults, which are allowed.
template <class Set>
std::string refusal(const Set& set) {
  sampling_params params;
  set(params);
  const auto checked = check_params(params);
  if (checked) return "accepted";
  EXPECT_EQ(checked.error().code, base::error_code::invalid_argument);
  return checked.error().message;
}

TEST(CheckParams, AcceptsTheEndsOfEveryRange) {
  EXPECT_EQ(refusal([](auto&) {}), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.temperature = 0.0F; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.temperature = 2.0F; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.top_p = 1.0F; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.top_p = std::numeric_limits<float>::min(); }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.top_k = std::numeric_limits<std::int32_t>::max(); }),
            "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.max_tokens = 1; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.max_tokens = std::numeric_limits<std::int64_t>::max(); }),
            "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.logprobs = -1; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.logprobs = 20; }), "accepted");
  EXPECT_EQ(refusal([](auto& p) { p.stop_token_ids = std::vector<std::int32_t>(64, 1); }),
            "accepted");
}

TEST(CheckParams, RefusesWhatIsOutsideNamingParameterValueAndRange) {
  EXPECT_EQ(refusal([](auto& p) { p.temperature = -0.5F; }),
            "temperature is -0.500000, allowed: 0 to 2");
  EXPECT_EQ(refusal([](auto& p) { p.temperature = 2.5F; }),
            "temperature is 2.500000, allowed: 0 to 2");
  EXPECT_EQ(refusal([](auto& p) { p.top_p = 0.0F; }),
            "top_p is 0.000000, allowed: above 0, up to 1");
  EXPECT_EQ(refusal([](auto& p) { p.top_p = 1.5F; }),
            "top_p is 1.500000, allowed: above 0, up to 1");
  EXPECT_EQ(refusal([](auto& p) { p.top_k = -1; }), "top_k is -1, allowed: 0 (off) or more");
  EXPECT_EQ(refusal([](auto& p) { p.max_tokens = 0; }), "max_tokens is 0, allowed: 1 or more");
  EXPECT_EQ(refusal([](auto& p) { p.logprobs = 21; }), "logprobs is 21, allowed: 0 to 20");
  EXPECT_EQ(refusal([](auto& p) { p.logprobs = -2; }), "logprobs is -2, allowed: 0 to 20");
  EXPECT_EQ(refusal([](auto& p) { p.stop_token_ids = std::vector<std::int32_t>(65, 1); }),
            "stop_token_ids has more than 64 entries");
}

TEST(CheckParams, RefusesWhatIsNotANumber) {
  EXPECT_EQ(refusal([](auto& p) { p.temperature = not_a_number; }),
            "temperature is nan, allowed: 0 to 2");
  EXPECT_EQ(refusal([](auto& p) { p.temperature = infinity; }),
            "temperature is inf, allowed: 0 to 2");
  EXPECT_EQ(refusal([](auto& p) { p.top_p = not_a_number; }),
            "top_p is nan, allowed: above 0, up to 1");
}

TEST(SequenceLog, TokensAreThePromptsAndThenTheEmitted) {
  sequence_log log;
  log.prompt_ids = {7, 8};
  log.emitted_ids = {9};
  ASSERT_EQ(log.size(), 3);
  EXPECT_EQ(log.token(0), 7);
  EXPECT_EQ(log.token(1), 8);
  EXPECT_EQ(log.token(2), 9);
}

sequence_log emitted(std::vector<std::int32_t> ids, std::int64_t max_tokens = 100) {
  sequence_log log;
  log.params.max_tokens = max_tokens;
  log.prompt_ids = {1, 2};
  log.emitted_ids = std::move(ids);
  return log;
}

TEST(Finished, GoesOnUntilSomethingEndsIt) {
  EXPECT_EQ(finished(emitted({}), {5}, 1000), std::nullopt);
  EXPECT_EQ(finished(emitted({3, 4}), {5}, 1000), std::nullopt);
}

TEST(Finished, EndsAtMaxTokensAndAtTheModelsLength) {
  EXPECT_EQ(finished(emitted({3, 4}, 2), {5}, 1000), finish_reason::length);
  EXPECT_EQ(finished(emitted({3}, 2), {5}, 1000), std::nullopt);
  EXPECT_EQ(finished(emitted({3, 4}), {5}, 4), finish_reason::length);
  EXPECT_EQ(finished(emitted({3}), {5}, 4), std::nullopt);
}

TEST(Finished, AnyEndOfSequenceTokenStopsUnlessIgnored) {
  EXPECT_EQ(finished(emitted({3, 5}), {4, 5}, 1000), finish_reason::stop);
  EXPECT_EQ(finished(emitted({5, 3}), {4, 5}, 1000), std::nullopt) << "only the last one counts";
  sequence_log ignoring = emitted({5});
  ignoring.params.ignore_eos = true;
  EXPECT_EQ(finished(ignoring, {5}, 1000), std::nullopt);
  EXPECT_EQ(finished(emitted({5}), {}, 1000), std::nullopt);
}

TEST(Finished, AStopTokenOfTheRequestStopsEvenWhereTheEndOfSequenceIsIgnored) {
  sequence_log log = emitted({6});
  log.params.ignore_eos = true;
  log.params.stop_token_ids = {6};
  EXPECT_EQ(finished(log, {5}, 1000), finish_reason::stop);
}

TEST(Finished, AStopOnTheLastAllowedTokenIsAStop) {
  EXPECT_EQ(finished(emitted({5}, 1), {5}, 1000), finish_reason::stop);
}

TEST(Finished, ReasonsHaveTheNamesOfOpenAisApi) {
  EXPECT_STREQ(to_string(finish_reason::length), "length");
  EXPECT_STREQ(to_string(finish_reason::stop), "stop");
}

}  // namespace
}  // namespace troupe::engine
