// Draws follow the softmax, and draws of different tokens, choices and seeds know nothing of each
// other: chi-square tests with fixed seeds.
#include "tests/kernels/vocabulary_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

constexpr std::int64_t vocabulary = 10;

[[nodiscard]] std::vector<float> some_logits() {
  return {0.0F, 1.0F, -1.0F, 0.3F, 2.0F, -2.0F, 0.7F, 1.5F, -0.4F, 0.1F};
}

[[nodiscard]] std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) sum += p.emplace_back(std::exp(logit / temperature));
  for (double& value : p) value /= sum;
  return p;
}

// Tokens drawn for `rows`, one of `first_token_id` + [0, 10), with the same logits in each.
[[nodiscard]] std::vector<std::size_t> draw(instruction_path path, std::vector<sampling_row> rows,
                                            std::int64_t first_token_id) {
  const auto logits = some_logits();
  vocabulary_case input(static_cast<std::int64_t>(rows.size()), {vocabulary}, 0);
  input.sampling = std::move(rows);
  input.first_token_id = first_token_id;
  for (std::int64_t row = 0; row < input.logits.rows(); ++row) {
    std::copy(logits.begin(), logits.end(), &input.logits.at(row, 0));
  }
  std::vector<std::size_t> drawn;
  for (const run_summary& summary : input.run(path).summaries) {
    drawn.push_back(static_cast<std::size_t>(summary.noise_best.token_id - first_token_id));
  }
  return drawn;
}

[[nodiscard]] double chi_square(const std::vector<double>& observed,
                                const std::vector<double>& expected) {
  double sum = 0;
  for (std::size_t i = 0; i < observed.size(); ++i) {
    sum += (observed[i] - expected[i]) * (observed[i] - expected[i]) / expected[i];
  }
  return sum;
}

// Wilson-Hilferty: chi-square that a fair generator exceeds with probability 1e-4 (z = 3.72).
[[nodiscard]] double chi_square_limit(double degrees) {
  const double a = 2.0 / (9.0 * degrees);
  return degrees * std::pow(1.0 - a + 3.72 * std::sqrt(a), 3.0);
}

TEST(Draws, FollowTheSoftmaxAtAnyTemperature) {
  constexpr std::size_t count = 200'000;
  for (const float temperature : {0.5F, 1.0F, 3.0F}) {
    for (const std::int64_t first : {0, 151'001}) {
      std::vector<sampling_row> rows;
      for (std::size_t i = 0; i < count; ++i) {
        rows.push_back({.temperature = temperature, .seed = 42, .choice = 0, .token_index = i});
      }
      std::vector<double> observed(vocabulary);
      for (const std::size_t token : draw(paths().back(), rows, first)) observed[token] += 1.0;
      std::vector<double> expected = softmax(some_logits(), temperature);
      for (double& value : expected) value *= count;
      EXPECT_LT(chi_square(observed, expected), chi_square_limit(vocabulary - 1))
          << "temperature " << temperature << " first id " << first << " seed 42";
    }
  }
}

// Pairs of draws in the 10 x 10 table of products of the softmax.
void expect_independent(const std::vector<std::size_t>& a, const std::vector<std::size_t>& b,
                        const std::string& what) {
  const std::vector<double> p = softmax(some_logits(), 1.0);
  std::vector<double> observed(vocabulary * vocabulary);
  std::vector<double> expected(vocabulary * vocabulary);
  for (std::size_t i = 0; i < a.size(); ++i) observed[a[i] * vocabulary + b[i]] += 1.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expected[i] = p[i / vocabulary] * p[i % vocabulary] * static_cast<double>(a.size());
  }
  EXPECT_LT(chi_square(observed, expected), chi_square_limit(vocabulary * vocabulary - 1)) << what;
}

TEST(Draws, OfNeighboursAreIndependent) {
  constexpr std::uint64_t count = 200'000;
  const auto sequence = [&](std::uint64_t seed_step, std::uint32_t choice, std::uint64_t shift) {
    std::vector<sampling_row> rows;
    for (std::uint64_t i = 0; i < count; ++i) {
      rows.push_back({.temperature = 1.0F,
                      .seed = 7 + seed_step * i,
                      .choice = choice,
                      .token_index = seed_step != 0 ? shift : i + shift});
    }
    return draw(paths().front(), std::move(rows), 0);
  };
  const auto base = sequence(0, 0, 0);
  expect_independent(base, sequence(0, 0, 1), "token_index and the next, seed 7");
  expect_independent(base, sequence(0, 0, 1ULL << 32), "token_index and 2^32 further, seed 7");
  expect_independent(base, sequence(0, 1, 0), "choices 0 and 1, seed 7");
  expect_independent(sequence(1, 0, 0), sequence(1, 0, 1), "seeds 7.., token_index 0 and 1");
  const auto seeds = sequence(1, 0, 0);
  expect_independent({seeds.begin(), seeds.end() - 1}, {seeds.begin() + 1, seeds.end()},
                     "neighbouring seeds");
}

}  // namespace
}  // namespace troupe::kernels
