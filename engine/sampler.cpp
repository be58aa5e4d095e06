#include "engine/sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::engine {
namespace {

using kernels::run_summary;
using kernels::token_candidate;

bool more_likely(const token_candidate& a, const token_candidate& b) noexcept {
  return a.logit != b.logit ? a.logit > b.logit : a.token_id < b.token_id;
}

// Adds one value a run in the canonical tree.
double tree(std::array<double, models::canonical_runs> values) noexcept {
  for (std::size_t width = 1; width < values.size(); width *= 2) {
    for (std::size_t i = 0; i < values.size(); i += 2 * width) values[i] += values[i + width];
  }
  return values[0];
}

// Sum over the vocabulary of exp((logit - maximum) / temperature).
double tempered_sum(std::span<const run_summary> runs, float temperature, float maximum) noexcept {
  std::array<double, models::canonical_runs> sums{};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].sum_exp_tempered == 0.0F) continue;
    sums[i] =
        static_cast<double>(runs[i].sum_exp_tempered) *
        std::exp(static_cast<double>(runs[i].maximum - maximum) / static_cast<double>(temperature));
  }
  return tree(sums);
}

bool needs_order(const sample_request& request) noexcept {
  return request.row.temperature > 0.0F &&
         (request.top_k > 0 || request.top_p < 1.0F || request.min_p > 0.0F);
}

// The best perturbed score of the whole vocabulary.
token_candidate best_of_runs(std::span<const run_summary> runs) noexcept {
  const run_summary* best = nullptr;
  for (const run_summary& run : runs) {  // ascending ids: a tie stays with the lower one
    if (run.noise_best.token_id < 0) continue;
    if (best == nullptr || run.noise_best_score > best->noise_best_score) best = &run;
  }
  TROUPE_CHECK(best != nullptr);
  return best->noise_best;
}

// How many of `ordered` reach min_p; nullopt: more than there are might.
std::optional<std::size_t> reaching_min_p(const sample_request& request, float maximum,
                                          std::span<const token_candidate> ordered, bool complete) {
  const double least =
      static_cast<double>(maximum) +
      static_cast<double>(request.row.temperature) * std::log(static_cast<double>(request.min_p));
  const auto below = std::find_if(ordered.begin(), ordered.end(), [&](const token_candidate& one) {
    return static_cast<double>(one.logit) < least;
  });
  if (below == ordered.end() && !complete) return std::nullopt;
  return static_cast<std::size_t>(below - ordered.begin());
}

// How many of `ordered` min_p, top_k and top_p leave; nullopt: more than there are might remain.
std::optional<std::size_t> kept(const sample_request& request, std::span<const run_summary> runs,
                                std::span<const token_candidate> ordered, bool complete) {
  const double temperature = static_cast<double>(request.row.temperature);
  const float maximum = highest_logit(runs);
  std::size_t limit = ordered.size();
  bool cut = false;
  if (request.top_k > 0 && static_cast<std::size_t>(request.top_k) <= limit) {
    limit = static_cast<std::size_t>(request.top_k);
    cut = true;
  }
  if (request.min_p > 0.0F) {
    // Where top_k has cut already, what lies behind does not matter.
    const auto reach = reaching_min_p(request, maximum, ordered.first(limit), complete || cut);
    if (!reach) return std::nullopt;
    limit = *reach;
    cut = true;
  }
  if (!cut && !complete && (request.top_k > 0 || request.top_p >= 1.0F)) return std::nullopt;
  if (request.top_p >= 1.0F) return limit;
  const auto weight = [&](std::size_t i) {
    return std::exp(static_cast<double>(ordered[i].logit - maximum) / temperature);
  };
  double total = 0.0;
  if (cut || request.top_k > 0) {
    for (std::size_t i = 0; i < limit; ++i) total += weight(i);
  } else {
    total = tempered_sum(runs, request.row.temperature, maximum);
  }
  double before = 0.0;
  for (std::size_t i = 0; i < limit; ++i) {
    before += weight(i);
    if (before >= static_cast<double>(request.top_p) * total) return i + 1;
  }
  return cut || complete ? std::optional(limit) : std::nullopt;
}

token_candidate best_of_kept(const sample_request& request,
                             std::span<const token_candidate> kept_candidates) noexcept {
  TROUPE_CHECK(!kept_candidates.empty());
  std::size_t best = 0;
  float best_score = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < kept_candidates.size(); ++i) {
    const token_candidate& candidate = kept_candidates[i];
    const float score =
        kernels::perturbed_score(sampling_row_of(request), candidate.token_id, candidate.logit);
    const bool lower = candidate.token_id < kept_candidates[best].token_id;
    if (score > best_score || (score == best_score && lower)) {
      best = i;
      best_score = score;
    }
  }
  return kept_candidates[best];
}

sampled_token finish(const sample_request& request, std::span<const run_summary> runs,
                     token_candidate chosen, std::span<const token_candidate> ordered) {
  const double norm = log_sum_exp(runs);
  const auto logprob = [norm](float logit) {
    return static_cast<float>(static_cast<double>(logit) - norm);
  };
  sampled_token token{
      .sequence = {}, .token_id = chosen.token_id, .logprob = logprob(chosen.logit), .top = {}};
  const auto wanted = static_cast<std::size_t>(std::max(0, request.logprobs));
  for (std::size_t i = 0; i < std::min(wanted, ordered.size()); ++i) {
    token.top.push_back({ordered[i].token_id, logprob(ordered[i].logit)});
  }
  return token;
}

// Merges the runs' candidates; the order is certain only down to the first exhausted run, so what
// lies below is dropped. `complete` tells whether nothing was.
std::vector<token_candidate> merge(const row_summaries& summaries, bool& complete) {
  const auto each = static_cast<std::size_t>(summaries.candidates);
  std::vector<token_candidate> merged;
  std::optional<token_candidate> floor;  // the lowest candidate of a run that has more tokens
  for (std::size_t run = 0; run < summaries.runs.size(); ++run) {
    const auto list = summaries.top.subspan(run * each, each);
    std::size_t count = 0;
    while (count < each && list[count].token_id >= 0) ++count;
    merged.insert(merged.end(), list.begin(), list.begin() + static_cast<long>(count));
    const auto tokens =
        static_cast<std::size_t>(summaries.vocabulary.run(static_cast<int>(run)).size());
    if (count == tokens) continue;
    TROUPE_CHECK(count == each);
    if (each == 0) {
      complete = false;
      return {};
    }
    if (!floor || more_likely(list[count - 1], *floor)) floor = list[count - 1];
  }
  std::sort(merged.begin(), merged.end(), more_likely);
  complete = !floor.has_value();
  if (floor) {
    const auto certain = std::upper_bound(merged.begin(), merged.end(), *floor, more_likely);
    merged.erase(certain, merged.end());
  }
  return merged;
}

}  // namespace

float highest_logit(std::span<const run_summary> runs) noexcept {
  float maximum = -std::numeric_limits<float>::infinity();
  for (const run_summary& run : runs) maximum = std::max(maximum, run.maximum);
  return maximum;
}

bool all_finite(std::span<const run_summary> runs) noexcept {
  return std::all_of(runs.begin(), runs.end(), [](const run_summary& run) { return run.finite; });
}

int candidates_for(const sample_request& request) noexcept {
  int wanted = std::max(0, request.logprobs);
  if (request.row.temperature > 0.0F) {
    if (request.top_k > 0) wanted = std::max(wanted, request.top_k);
    const bool by_share = request.top_p < 1.0F || request.min_p > 0.0F;
    if (by_share && request.top_k == 0) wanted = std::max(wanted, top_p_candidates);
  }
  return std::min(wanted, kernels::vocabulary_candidates_max);
}

double log_sum_exp(std::span<const run_summary> runs) noexcept {
  const float maximum = highest_logit(runs);
  std::array<double, models::canonical_runs> sums{};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].sum_exp == 0.0F) continue;
    sums[i] = static_cast<double>(runs[i].sum_exp) *
              std::exp(static_cast<double>(runs[i].maximum) - static_cast<double>(maximum));
  }
  return static_cast<double>(maximum) + std::log(tree(sums));
}

std::optional<sampled_token> sample(const sample_request& request, const row_summaries& summaries) {
  if (!all_finite(summaries.runs)) return sampled_token{.sequence = {}, .top = {}, .finite = false};
  bool complete = false;
  const std::vector<token_candidate> ordered = merge(summaries, complete);
  if (!complete && request.logprobs > static_cast<std::int32_t>(ordered.size())) {
    return std::nullopt;
  }
  if (!needs_order(request)) {
    return finish(request, summaries.runs, best_of_runs(summaries.runs), ordered);
  }
  const auto count = kept(request, summaries.runs, ordered, complete);
  if (!count) return std::nullopt;
  const auto chosen = best_of_kept(request, std::span(ordered).first(*count));
  return finish(request, summaries.runs, chosen, ordered);
}

sampled_token sample_from_all(const sample_request& request, std::span<const run_summary> runs,
                              std::span<const float> logits) {
  if (!all_finite(runs)) return sampled_token{.sequence = {}, .top = {}, .finite = false};
  std::vector<token_candidate> ordered;
  ordered.reserve(logits.size());
  for (std::size_t id = 0; id < logits.size(); ++id) {
    ordered.push_back({static_cast<std::int32_t>(id), logits[id]});
  }
  std::sort(ordered.begin(), ordered.end(), more_likely);
  if (!needs_order(request)) return finish(request, runs, best_of_runs(runs), ordered);
  const std::size_t count = kept(request, runs, ordered, true).value();
  return finish(request, runs, best_of_kept(request, std::span(ordered).first(count)), ordered);
}

void set_logprobs(const sample_request& request, const row_summaries& summaries, float logit,
                  sampled_token& token) {
  bool complete = false;
  const std::vector<token_candidate> ordered = merge(summaries, complete);
  const sampled_token plain =
      finish(request, summaries.runs, {.token_id = token.token_id, .logit = logit}, ordered);
  token.logprob = plain.logprob;
  token.top = plain.top;
}

}  // namespace troupe::engine
