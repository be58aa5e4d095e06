// Made-up logits and what a sampler must answer for them, computed plainly in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "engine/sampler.hpp"

namespace troupe::engine {

// The eight runs' summaries of one row, made with plain loops in double.
struct sampler_case {
  models::grid vocabulary;
  std::vector<float> logits;
  sample_request request;
  std::vector<kernels::run_summary> runs = {};

  sampler_case(std::vector<float> row, sample_request wanted)
      : vocabulary{.size = static_cast<std::int64_t>(row.size()), .unit = models::vocabulary_unit},
        logits(std::move(row)),
        request(wanted) {
    summarise();
  }

  // What a run would send. Shape: [canonical_runs][candidates].
  [[nodiscard]] std::vector<kernels::token_candidate> top(int candidates) const {
    std::vector<kernels::token_candidate> all;
    for (int run = 0; run < models::canonical_runs; ++run) {
      std::vector<kernels::token_candidate> own = ordered(vocabulary.run(run));
      own.resize(static_cast<std::size_t>(candidates));
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }

  [[nodiscard]] std::optional<sampled_token> sample_with(int candidates) const {
    const std::vector<kernels::token_candidate> own = top(candidates);
    return sample(request, {runs, own, candidates, vocabulary});
  }
  [[nodiscard]] sampled_token sample_whole() const {
    return sample_from_all(request, runs, logits);
  }

  // Tokens of a range, most likely first, ties to the lower id.
  [[nodiscard]] std::vector<kernels::token_candidate> ordered(models::range of) const {
    std::vector<kernels::token_candidate> own;
    for (std::int64_t id = of.begin; id < of.end; ++id) {
      own.push_back({static_cast<std::int32_t>(id), logits[static_cast<std::size_t>(id)]});
    }
    std::stable_sort(own.begin(), own.end(),
                     [](const auto& a, const auto& b) { return a.logit > b.logit; });
    return own;
  }

  [[nodiscard]] double logprob(std::int32_t token_id) const {
    double sum = 0.0;
    const double maximum = *std::max_element(logits.begin(), logits.end());
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - maximum);
    return static_cast<double>(logits[static_cast<std::size_t>(token_id)]) - maximum -
           std::log(sum);
  }

 private:
  void summarise() {
    for (int run = 0; run < models::canonical_runs; ++run) {
      kernels::run_summary summary;
      summary.maximum = -std::numeric_limits<float>::infinity();
      summary.noise_best_score = -std::numeric_limits<float>::infinity();
      const std::vector<kernels::token_candidate> own = ordered(vocabulary.run(run));
      for (const auto& token : own) {
        if (!std::isfinite(token.logit)) summary.finite = false;
        summary.maximum = std::max(summary.maximum, token.logit);
      }
      double sum = 0.0;
      double tempered = 0.0;
      const float temperature = request.row.temperature;
      for (const auto& token : own) {
        const double below = static_cast<double>(token.logit - summary.maximum);
        sum += std::exp(below);
        if (temperature > 0.0F) tempered += std::exp(below / static_cast<double>(temperature));
        const float score = score_of(token);
        if (score > summary.noise_best_score ||
            (score == summary.noise_best_score && token.token_id < summary.noise_best.token_id)) {
          summary.noise_best_score = score;
          summary.noise_best = token;
        }
      }
      summary.sum_exp = static_cast<float>(sum);
      summary.sum_exp_tempered = static_cast<float>(tempered);
      runs.push_back(summary);
    }
  }

  [[nodiscard]] float score_of(const kernels::token_candidate& token) const {
    if (request.row.temperature == 0.0F) return token.logit;
    return token.logit / request.row.temperature +
           kernels::gumbel_noise(sampling_row_of(request), token.token_id);
  }
};

// The answer by definition: temperature, then min_p, then top_k, then top_p over what is left, then
// the highest of logit / temperature + noise. Source: transformers generation/logits_process.py.
struct oracle_answer {
  std::int32_t token_id = -1;
  std::size_t kept = 0;
  bool certain = true;  // false: within rounding of another answer
};

inline oracle_answer oracle(const sampler_case& of) {
  std::vector<kernels::token_candidate> left = of.ordered({0, of.vocabulary.size});
  const double temperature = static_cast<double>(of.request.row.temperature);
  if (temperature == 0.0) return {.token_id = left.front().token_id, .kept = left.size()};
  if (of.request.top_k > 0) {
    left.resize(std::min(left.size(), static_cast<std::size_t>(of.request.top_k)));
  }
  oracle_answer answer;
  const double maximum = static_cast<double>(left.front().logit);
  const auto weight = [&](const kernels::token_candidate& token) {
    return std::exp((static_cast<double>(token.logit) - maximum) / temperature);
  };
  const auto min_p = static_cast<double>(of.request.min_p);
  for (const auto& token : left) {
    const double off = std::abs(weight(token) - min_p);
    if (min_p > 0.0 && off > 0.0 && off < 1e-9) answer.certain = false;
  }
  std::erase_if(left, [&](const auto& token) { return weight(token) < min_p; });
  if (of.request.top_p < 1.0F) {
    double total = 0.0;
    for (const auto& token : left) total += weight(token);
    double before = 0.0;
    std::size_t count = 0;
    while (count < left.size() && before < static_cast<double>(of.request.top_p) * total) {
      before += weight(left[count++]);
      // Summaries carry their sums of exp in float32.
      if (std::abs(before / total - static_cast<double>(of.request.top_p)) < 1e-5) {
        answer.certain = false;
      }
    }
    left.resize(count);
  }
  answer.kept = left.size();
  double best = -std::numeric_limits<double>::infinity();
  double second = best;
  for (const auto& token : left) {
    const double score =
        static_cast<double>(token.logit) / temperature +
        static_cast<double>(kernels::gumbel_noise(sampling_row_of(of.request), token.token_id));
    if (score > best) {
      second = best;
      best = score;
      answer.token_id = token.token_id;
    } else {
      second = std::max(second, score);
    }
  }
  // float32 scores: a relative 2^-22 covers the division and the addition.
  if (best - second < std::abs(best) * 0x1p-22 + 1e-6) answer.certain = false;
  return answer;
}

// Normal logits; `step` > 0 rounds them to multiples of it, so that many are equal.
inline std::vector<float> random_logits(std::mt19937& random, std::size_t size, float deviation,
                                        float step = 0.0F) {
  std::vector<float> logits(size);
  for (std::size_t i = 0; i < size; i += 2) {
    // Box-Muller: the same numbers on every standard library.
    const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(random()) + 1) / 0x1p32));
    const double angle = 2.0 * 3.14159265358979323846 * static_cast<double>(random()) / 0x1p32;
    logits[i] = deviation * static_cast<float>(radius * std::cos(angle));
    if (i + 1 < size) logits[i + 1] = deviation * static_cast<float>(radius * std::sin(angle));
  }
  if (step > 0.0F) {
    for (float& logit : logits) logit = step * std::round(logit / step);
  }
  return logits;
}

}  // namespace troupe::engine
