#include "engine/sampler.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "tests/engine/sampler_case.hpp"

namespace troupe::engine {
namespace {

sample_request greedy(std::int32_t logprobs = -1) {
  return {.row = {}, .top_p = 1.0F, .top_k = 0, .logprobs = logprobs};
}

sample_request request_of(std::mt19937& random) {
  constexpr float temperatures[] = {0.0F, 0.05F, 0.7F, 1.0F, 2.0F};
  constexpr float top_ps[] = {1.0F, 0.999F, 0.9F, 0.5F, 0.01F};
  constexpr std::int32_t top_ks[] = {0, 1, 2, 7, 40, 100000};
  sample_request request;
  request.row = {.temperature = temperatures[random() % 5],
                 .seed = random(),
                 .choice = static_cast<std::uint32_t>(random() % 3),
                 .token_index = random() % 50};
  request.top_p = top_ps[random() % 5];
  request.top_k = top_ks[random() % 6];
  constexpr float min_ps[] = {0.0F, 0.0F, 0.01F, 0.3F, 1.0F};
  request.min_p = min_ps[random() % 5];
  request.logprobs = static_cast<std::int32_t>(random() % 23) - 1;
  request.logprobs = std::min(request.logprobs, 20);
  return request;
}

std::string describe(const sample_request& request, std::size_t vocabulary) {
  return "temperature " + std::to_string(request.row.temperature) + " top_p " +
         std::to_string(request.top_p) + " min_p " + std::to_string(request.min_p) + " top_k " +
         std::to_string(request.top_k) + " logprobs " + std::to_string(request.logprobs) +
         " vocabulary " + std::to_string(vocabulary);
}

void expect_same_bits(const sampled_token& a, const sampled_token& b) {
  EXPECT_EQ(a.token_id, b.token_id);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(a.logprob), std::bit_cast<std::uint32_t>(b.logprob));
  EXPECT_EQ(a.finite, b.finite);
  ASSERT_EQ(a.top.size(), b.top.size());
  for (std::size_t i = 0; i < a.top.size(); ++i) {
    EXPECT_EQ(a.top[i].token_id, b.top[i].token_id);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(a.top[i].logprob),
              std::bit_cast<std::uint32_t>(b.top[i].logprob));
  }
}

TEST(Sampler, GreedyTakesTheHighestLogitAndTheLowerIdOfEquals) {
  std::vector<float> logits(1000, -1.0F);
  logits[937] = logits[402] = logits[401] = 3.5F;
  const sampler_case of(logits, greedy());
  EXPECT_EQ(of.sample_with(0)->token_id, 401);
  EXPECT_EQ(of.sample_whole().token_id, 401);
}

TEST(Sampler, GreedyAgreesWithTheOracleOverManyEqualLogits) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const sampler_case of(random_logits(random, 1 + random() % 2000, 2.0F, 0.5F), greedy());
    ASSERT_EQ(of.sample_with(0)->token_id, oracle(of).token_id) << "seed " << seed;
  }
}

TEST(Sampler, AgreesWithTheDefinitionInDoublePrecision) {
  int certain = 0;
  constexpr int cases = 3000;
  for (unsigned seed = 1; seed <= cases; ++seed) {
    std::mt19937 random(seed);
    const float step = random() % 2 == 0 ? 0.0F : 0.25F;
    const sampler_case of(random_logits(random, 1 + random() % 3000, 2.5F, step),
                          request_of(random));
    SCOPED_TRACE("seed " + std::to_string(seed) + " " + describe(of.request, of.logits.size()));
    const oracle_answer answer = oracle(of);
    const auto sampled = of.sample_with(candidates_for(of.request));
    if (answer.certain) {
      ++certain;
      ASSERT_EQ(of.sample_whole().token_id, answer.token_id) << "kept " << answer.kept;
      if (sampled) {
        ASSERT_EQ(sampled->token_id, answer.token_id) << "kept " << answer.kept;
      }
    }
  }
  EXPECT_GT(certain, cases * 9 / 10) << "the cases decide too little";
}

TEST(Sampler, CandidatesGiveTheBitsOfAllLogitsOrAskForThem) {
  int asked = 0;
  for (unsigned seed = 1; seed <= 3000; ++seed) {
    std::mt19937 random(seed);
    const sampler_case of(
        random_logits(random, 1 + random() % 3000, random() % 2 == 0 ? 4.0F : 0.3F,
                      random() % 2 == 0 ? 0.0F : 0.125F),
        request_of(random));
    SCOPED_TRACE("seed " + std::to_string(seed) + " " + describe(of.request, of.logits.size()));
    const sampled_token whole = of.sample_whole();
    // More than asked for: another request of the same step may need more.
    const int more = candidates_for(of.request) + static_cast<int>(random() % 40);
    for (const int candidates : {0, 1, candidates_for(of.request), more}) {
      const auto sampled = of.sample_with(candidates);
      if (!sampled) {
        ++asked;
        continue;
      }
      expect_same_bits(*sampled, whole);
      ASSERT_FALSE(HasFailure()) << candidates << " candidates";
    }
  }
  EXPECT_GT(asked, 1000) << "the case of too few candidates was hardly met";
}

TEST(Sampler, AsksForAllLogitsExactlyWhenTheCandidatesEndTooEarly) {
  std::vector<float> flat(8 * 640, 0.0F);
  for (std::size_t i = 0; i < flat.size(); ++i) flat[i] = -1e-4F * static_cast<float>(i % 7);
  sample_request request{.row = {.temperature = 1.0F, .seed = 5}, .top_p = 0.9F};
  EXPECT_FALSE(sampler_case(flat, request).sample_with(top_p_candidates).has_value());
  flat[77] = 30.0F;  // now one token holds everything
  EXPECT_EQ(sampler_case(flat, request).sample_with(top_p_candidates)->token_id, 77);

  request = {.row = {.temperature = 1.0F, .seed = 5}, .top_k = 3};
  EXPECT_FALSE(sampler_case(flat, request).sample_with(0).has_value());
  EXPECT_TRUE(sampler_case(flat, request).sample_with(3).has_value());
  EXPECT_FALSE(sampler_case(flat, greedy(5)).sample_with(4).has_value() &&
               sampler_case(flat, greedy(5)).sample_with(4)->top.size() < 5);
}

TEST(Sampler, TopKUpToTheLimitAndLogprobsNeverNeedAllLogits) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    sample_request request = request_of(random);
    request.top_k = 1 + static_cast<std::int32_t>(random() % 200);
    const sampler_case of(random_logits(random, 1 + random() % 3000, 1.0F, 0.25F), request);
    EXPECT_TRUE(of.sample_with(candidates_for(request)).has_value()) << "seed " << seed;
  }
}

TEST(Sampler, CandidatesAreFetchedOnlyWhereTheyAreNeeded) {
  sample_request request = greedy();
  EXPECT_EQ(candidates_for(request), 0);
  request.logprobs = 7;
  EXPECT_EQ(candidates_for(request), 7);
  request.top_k = 50;
  EXPECT_EQ(candidates_for(request), 7) << "greedy needs no order";
  request.row.temperature = 1.0F;
  EXPECT_EQ(candidates_for(request), 50);
  request.top_k = 1 << 20;
  EXPECT_EQ(candidates_for(request), kernels::vocabulary_candidates_max);
  request.top_k = 0;
  request.top_p = 0.9F;
  EXPECT_EQ(candidates_for(request), top_p_candidates);
}

TEST(Sampler, TopKOfOneIsGreedyAtAnyTemperature) {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    std::mt19937 random(seed);
    const sampler_case of(random_logits(random, 500, 1.0F),
                          {.row = {.temperature = 2.0F, .seed = seed}, .top_p = 1.0F, .top_k = 1});
    EXPECT_EQ(of.sample_with(1)->token_id, of.ordered({0, 500}).front().token_id);
  }
}

TEST(Sampler, LogprobsAreThoseOfTheModelsOwnDistribution) {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    std::mt19937 random(seed);
    sample_request request = request_of(random);
    request.logprobs = 20;
    const sampler_case of(random_logits(random, 21 + random() % 2000, 3.0F, 0.5F), request);
    const sampled_token token = of.sample_whole();
    // float32 sums of exp over at most 2021 tokens, and a float32 result of magnitude up to 30.
    EXPECT_NEAR(token.logprob, of.logprob(token.token_id), 4e-6) << "seed " << seed;
    const auto expected = of.ordered({0, of.vocabulary.size});
    ASSERT_EQ(token.top.size(), 20U);
    for (std::size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(token.top[i].token_id, expected[i].token_id) << "seed " << seed << " place " << i;
      EXPECT_NEAR(token.top[i].logprob, of.logprob(expected[i].token_id), 4e-6);
    }
  }
}

TEST(Sampler, ASmallVocabularyHasEmptyRunsAndShortLists) {
  // 65 tokens are two units of 64: six of the eight runs are empty.
  for (const std::size_t size : {1U, 2U, 64U, 65U}) {
    std::mt19937 random(static_cast<unsigned>(size));
    sample_request request{
        .row = {.temperature = 1.0F, .seed = 9}, .top_p = 0.95F, .top_k = 50, .logprobs = 20};
    const sampler_case of(random_logits(random, size, 1.0F), request);
    const auto sampled = of.sample_with(candidates_for(request));
    ASSERT_TRUE(sampled.has_value());
    EXPECT_EQ(sampled->top.size(), std::min<std::size_t>(20, size));
    expect_same_bits(*sampled, of.sample_whole());
  }
}

TEST(Sampler, LogitsThatAreNotNumbersAreReported) {
  for (const float wrong :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits(700, 0.5F);
    logits[650] = wrong;
    const sampler_case of(logits, greedy());
    EXPECT_FALSE(of.sample_with(0)->finite);
    EXPECT_FALSE(of.sample_whole().finite);
  }
}

TEST(Sampler, LogSumExpIsExactFromTheSummariesAlone) {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    std::mt19937 random(seed);
    const sampler_case of(random_logits(random, 1 + random() % 4000, 8.0F), greedy());
    const double exact = static_cast<double>(of.logits[0]) - of.logprob(0);
    EXPECT_NEAR(log_sum_exp(of.runs), exact, 1e-6) << "seed " << seed;
  }
}

// Draws follow the distribution they claim: a chi-square test per setting at a seed that is fixed,
// so it passes always or never.
void expect_distribution(float temperature, float top_p, std::int32_t top_k) {
  std::mt19937 random(11);
  const std::vector<float> logits = random_logits(random, 40, 1.5F);
  const sampler_case model(logits,
                           {.row = {.temperature = temperature}, .top_p = top_p, .top_k = top_k});
  const std::vector<kernels::token_candidate> order = model.ordered({0, 40});
  const std::size_t kept = oracle(model).kept;
  std::vector<double> weights;
  double total = 0.0;
  for (std::size_t i = 0; i < kept; ++i) {
    weights.push_back(std::exp(static_cast<double>(order[i].logit / temperature)));
    total += weights.back();
  }
  constexpr int draws = 20000;
  std::vector<int> counts(40, 0);
  for (int draw = 0; draw < draws; ++draw) {
    const sampler_case of(logits, {.row = {.temperature = temperature,
                                           .seed = 1234,
                                           .token_index = static_cast<std::uint64_t>(draw)},
                                   .top_p = top_p,
                                   .top_k = top_k});
    ++counts[static_cast<std::size_t>(of.sample_whole().token_id)];
  }
  double chi_square = 0.0;
  int total_counts = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    const double expected = draws * weights[i] / total;
    const int count = counts[static_cast<std::size_t>(order[i].token_id)];
    chi_square += (count - expected) * (count - expected) / expected;
    total_counts += count;
  }
  EXPECT_EQ(total_counts, draws) << "tokens that were cut off were drawn";
  // Mean kept - 1, variance 2 (kept - 1): five deviations up.
  const double freedom = static_cast<double>(kept - 1);
  EXPECT_LT(chi_square, freedom + 5.0 * std::sqrt(2.0 * freedom)) << "of " << kept << " tokens";
}

TEST(Sampler, DrawsFollowTheTemperedDistribution) {
  expect_distribution(1.0F, 1.0F, 0);
  expect_distribution(0.6F, 1.0F, 0);
  expect_distribution(1.7F, 1.0F, 0);
}

TEST(Sampler, DrawsFollowTheDistributionThatTopKAndTopPLeave) {
  expect_distribution(1.0F, 0.8F, 0);
  expect_distribution(1.2F, 1.0F, 9);
  expect_distribution(0.9F, 0.7F, 12);
}

}  // namespace
}  // namespace troupe::engine
