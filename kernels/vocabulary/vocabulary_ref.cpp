#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::kernels {
namespace {

run_summary summarise(std::span<const float> logits, std::int32_t first_id,
                      const sampling_row& row) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  run_summary summary;
  summary.maximum = summary.noise_best_score = -infinity;
  for (const float logit : logits) {
    summary.maximum = std::max(summary.maximum, logit);
    summary.finite = summary.finite && std::isfinite(logit);
  }
  if (!summary.finite) return summary;
  double sum = 0;
  double tempered = 0;
  const bool greedy = row.temperature == 0.0F;
  const double inverse = greedy ? 0.0 : inverse_temperature(row.temperature);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double below = static_cast<double>(logits[i]) - summary.maximum;
    sum += std::exp(below);
    if (!greedy) tempered += std::exp(below * inverse);
    const auto id = static_cast<std::int32_t>(first_id + static_cast<std::int64_t>(i));
    const float score = perturbed_score(row, id, logits[i]);
    if (summary.noise_best.token_id < 0 || score > summary.noise_best_score) {
      summary.noise_best = {id, logits[i]};
      summary.noise_best_score = score;
    }
  }
  summary.sum_exp = static_cast<float>(sum);
  summary.sum_exp_tempered = static_cast<float>(tempered);
  return summary;
}

void sort_top(std::span<const float> logits, std::int32_t first_id,
              std::span<token_candidate> top) {
  std::vector<token_candidate> all;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    all.push_back({static_cast<std::int32_t>(first_id + static_cast<std::int64_t>(i)), logits[i]});
  }
  std::stable_sort(all.begin(), all.end(), [](const token_candidate& a, const token_candidate& b) {
    return a.logit > b.logit;
  });
  std::fill(top.begin(), top.end(), token_candidate{});
  std::copy_n(all.begin(), std::min(all.size(), top.size()), top.begin());
}

}  // namespace

void summarise_vocabulary_reference(const summarise_vocabulary_args& args) {
  const std::size_t runs = args.run_ends.size();
  const auto candidates = static_cast<std::size_t>(args.candidates);
  for (std::size_t row = 0; row < args.rows.size(); ++row) {
    const float* const logits = args.logits.row<float>(static_cast<std::int64_t>(row));
    std::int64_t begin = 0;
    for (std::size_t run = 0; run < runs; ++run) {
      const std::int64_t end = args.run_ends[run];
      const std::span<const float> part(logits + begin, static_cast<std::size_t>(end - begin));
      const auto first_id = static_cast<std::int32_t>(args.first_token_id + begin);
      const std::size_t place = row * runs + run;
      args.summaries[place] = summarise(part, first_id, args.rows[row]);
      const auto top = args.top.subspan(place * candidates, candidates);
      if (args.summaries[place].finite) {
        sort_top(part, first_id, top);
      } else {
        std::fill(top.begin(), top.end(), token_candidate{});
      }
      begin = end;
    }
  }
}

}  // namespace troupe::kernels
