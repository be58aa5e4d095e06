#include "kernels/vocabulary/vocabulary.hpp"

#include "tests/kernels/vocabulary_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

// Error of a sum of n terms in epsilons u: an exponential 1.1 ulp = 2.2 u, a chain of 64 additions,
// 5 tree levels, one addition for each 2048 terms, the reference's rounding 1, all relative to the
// sum of positive terms. The exponent b >= 0 has one rounding, a second one when tempered by a
// rounded inverse: b u (3 b u) of its term. Terms below 2^-126 count as zero.
[[nodiscard]] double sum_bound(vocabulary_case& input, std::int64_t row, std::int64_t begin,
                               std::int64_t end, float maximum, double inverse) {
  double sum = 0;
  double of_exponents = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const double b = (static_cast<double>(maximum) - input.logits.at(row, i)) * inverse;
    sum += std::exp(-b);
    of_exponents += b * std::exp(-b);
  }
  const double terms = static_cast<double>(end - begin);
  return ((2.2 + 64.0 + 5.0 + terms / 2048.0 + 1.0) * sum + 3.0 * of_exponents) * float_epsilon +
         terms * 0x1p-126;
}

void expect_matches_reference(vocabulary_case& input, const vocabulary_result& actual,
                              const std::string& what) {
  const vocabulary_result expected = input.reference();
  const std::size_t runs = input.run_ends.size();
  for (std::size_t place = 0; place < input.places(); ++place) {
    const run_summary& got = actual.summaries[place];
    const run_summary& want = expected.summaries[place];
    const std::string where =
        what + ", row " + std::to_string(place / runs) + " run " + std::to_string(place % runs);
    ASSERT_TRUE(same_choice(got, want)) << where << "\n" << text_of(got) << "\n" << text_of(want);
    const auto row = static_cast<std::int64_t>(place / runs);
    const std::int64_t begin = place % runs == 0 ? 0 : input.run_ends[place % runs - 1];
    const std::int64_t end = input.run_ends[place % runs];
    const float temperature = input.sampling[place / runs].temperature;
    const double inverse = temperature == 0.0F ? 1.0 : inverse_temperature(temperature);
    ASSERT_NEAR(got.sum_exp, want.sum_exp, sum_bound(input, row, begin, end, want.maximum, 1.0))
        << where;
    ASSERT_NEAR(got.sum_exp_tempered, want.sum_exp_tempered,
                sum_bound(input, row, begin, end, want.maximum, inverse))
        << where;
  }
  for (std::size_t i = 0; i < actual.top.size(); ++i) {
    ASSERT_TRUE(same_candidate(actual.top[i], expected.top[i]))
        << what << ", candidate " << i << ": token " << actual.top[i].token_id << " "
        << actual.top[i].logit << " for " << expected.top[i].token_id << " "
        << expected.top[i].logit;
  }
}

[[nodiscard]] std::vector<std::vector<std::int64_t>> run_shapes() {
  return {{0},
          {1},
          {0, 0, 5, 5},
          {63, 64, 65, 200},
          {64, 128, 1'000, 1'000, 3'001},
          {19'008, 38'016, 57'000},
          {70'000}};
}

TEST(SummariseVocabulary, EqualsReferenceOnEveryPath) {
  for (const instruction_path path : paths()) {
    for (const auto& ends : run_shapes()) {
      for (const int candidates : {0, 1, 20, 1024}) {
        vocabulary_case input(4, ends, candidates);
        input.logits.fill(61, 3.0);
        input.sampling[1].temperature = 0.0F;
        input.sampling[2].temperature = 1.0F;
        input.sampling[3].temperature = 2.5F;
        input.first_token_id = candidates == 20 ? 1'003 : 64;
        const std::string what = std::string(to_string(path)) + " to " +
                                 std::to_string(ends.back()) + " candidates " +
                                 std::to_string(candidates);
        expect_matches_reference(input, input.run(path), what);
      }
    }
  }
}

TEST(SummariseVocabulary, BreaksTiesByTheLowerId) {
  for (const instruction_path path : paths()) {
    for (const int candidates : {1, 3, 64, 700}) {
      vocabulary_case input(4, {320, 640, 2'111}, candidates);
      input.sampling[1].temperature = input.sampling[3].temperature = 0.0F;
      generator random(62);
      for (std::int64_t row = 0; row < 4; ++row) {
        for (std::int64_t i = 0; i < 2'111; ++i) {
          const int levels = row < 2 ? 4 : 1;  // rows 2 and 3: all the same
          input.logits.at(row, i) =
              static_cast<float>(random.bits() % static_cast<std::uint64_t>(levels)) - 1.0F;
        }
      }
      expect_matches_reference(input, input.run(path), std::string(to_string(path)));
    }
  }
}

// Beside a logit of 1e9 (ulp 64) the noise rounds away: scores are equal.
TEST(SummariseVocabulary, BreaksTiesOfNoisyScoresByTheLowerId) {
  for (const instruction_path path : paths()) {
    for (const float level : {1e9F, -1e9F, 3e6F}) {
      vocabulary_case input(4, {700, 1'999}, 2);  // starts and ends within groups, but for one
      input.first_token_id = 64;
      input.sampling[1].temperature = input.sampling[2].temperature = 1.0F;
      for (std::int64_t row = 0; row < 4; ++row) {
        for (std::int64_t i = 0; i < 1'999; ++i) input.logits.at(row, i) = level;
      }
      expect_matches_reference(input, input.run(path), std::string(to_string(path)));
    }
  }
}

TEST(SummariseVocabulary, OrdersZerosOfBothSignsById) {
  for (const instruction_path path : paths()) {
    vocabulary_case input(1, {130}, 4);
    input.sampling[0].temperature = 0.0F;
    for (std::int64_t i = 0; i < 130; ++i) input.logits.at(0, i) = i % 2 == 0 ? -0.0F : 0.0F;
    const vocabulary_result result = input.run(path);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(result.summaries[0].maximum), 0U);
    EXPECT_EQ(result.summaries[0].noise_best.token_id, 0);
    for (std::int32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(result.top[static_cast<std::size_t>(i)].token_id, i) << to_string(path);
    }
  }
}

// Which blocks are looked at for candidates and winners hangs on their maxima: peaks, steps and
// slopes put these everywhere.
TEST(SummariseVocabulary, FindsWinnersInAnyLandscape) {
  for (const instruction_path path : paths()) {
    for (const float temperature : {0.05F, 0.7F, 1.0F, 20.0F}) {
      vocabulary_case input(5, {4'100, 8'192, 80'000}, 50);
      input.logits.fill(63, 0.5);
      for (auto& row : input.sampling) row.temperature = temperature;
      for (std::int64_t i = 0; i < 80'000; ++i) {
        input.logits.at(0, i) += i % 4'099 == 77 ? 30.0F : 0.0F;
        input.logits.at(1, i) += i < 5'000 ? 12.0F : 0.0F;
        input.logits.at(2, i) += static_cast<float>(i) * 1e-3F;
        input.logits.at(3, i) -= static_cast<float>(i) * 1e-3F;
      }
      expect_matches_reference(
          input, input.run(path),
          std::string(to_string(path)) + " temperature " + std::to_string(temperature));
    }
  }
}

TEST(SummariseVocabulary, TakesTheMaximumAtTheSmallestTemperatures) {
  for (const instruction_path path : paths()) {
    for (const float temperature : {1e-45F, 1e-30F, 1e-6F}) {
      vocabulary_case input(1, {500}, 0);
      input.logits.fill(64, 10.0);
      input.sampling[0].temperature = temperature;
      const run_summary got = input.run(path).summaries[0];
      EXPECT_EQ(got.noise_best.logit, got.maximum) << to_string(path) << " " << temperature;
      EXPECT_EQ(got.sum_exp_tempered, 1.0F) << to_string(path) << " " << temperature;
    }
  }
}

TEST(SummariseVocabulary, FlagsTheRunWithANumberThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const instruction_path path : paths()) {
    for (const float bad : {std::nanf(""), -std::nanf(""), infinity, -infinity}) {
      for (const std::int64_t place : {0, 70, 99, 100, 163, 250}) {
        vocabulary_case input(2, {100, 251}, 3);
        input.logits.fill(65);
        input.logits.at(0, place) = bad;
        const vocabulary_result result = input.run(path);
        const std::size_t hit = place < 100 ? 0 : 1;
        for (std::size_t i = 0; i < 4; ++i) {
          EXPECT_EQ(result.summaries[i].finite, i != hit)
              << to_string(path) << " " << bad << " at " << place << ", run " << i;
          EXPECT_EQ(result.top[3 * i].token_id == -1, i == hit);
        }
      }
    }
  }
}

TEST(PerturbedScore, PicksTheTokenThatTheSummaryPicked) {
  for (const instruction_path path : paths()) {
    vocabulary_case input(6, {1'000}, 1'000);
    input.logits.fill(66, 2.0);
    input.sampling[5].temperature = 0.0F;
    const vocabulary_result result = input.run(path);
    for (std::size_t row = 0; row < 6; ++row) {
      token_candidate best;
      float best_score = -std::numeric_limits<float>::infinity();
      for (std::size_t i = 0; i < 1'000; ++i) {  // by descending logit, not by id
        const token_candidate& token = result.top[row * 1'000 + i];
        const float score = perturbed_score(input.sampling[row], token.token_id, token.logit);
        if (score > best_score || (score == best_score && token.token_id < best.token_id)) {
          best = token;
          best_score = score;
        }
      }
      EXPECT_EQ(best.token_id, result.summaries[row].noise_best.token_id) << to_string(path);
      EXPECT_EQ(best_score, result.summaries[row].noise_best_score) << to_string(path);
    }
  }
}

TEST(SummariseVocabularyDeathTest, RefusesWhatItsCallerMustNotPass) {
  thread_pool pool({.threads = 1});
  vocabulary_case input(1, {10}, 2);
  input.logits.fill(67);
  vocabulary_result result = input.empty_result();
  input.sampling[0].temperature = -1.0F;
  EXPECT_DEATH(summarise_vocabulary(instruction_path::avx2, pool, input.args(result)),
               "temperature");
  input.sampling[0].temperature = std::nanf("");
  EXPECT_DEATH(summarise_vocabulary(instruction_path::avx2, pool, input.args(result)),
               "temperature");
  input.sampling[0].temperature = 1.0F;
  result.top.pop_back();
  EXPECT_DEATH(summarise_vocabulary(instruction_path::avx2, pool, input.args(result)), "top");
}

}  // namespace
}  // namespace troupe::kernels
