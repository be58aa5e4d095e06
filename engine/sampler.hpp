// From the eight runs' summaries to the next token: the same decision on every rank of the last
// stage.
//
// Greedy and plain temperature sampling take the best perturbed score over the runs. min_p, top_k
// and top_p cut the merged candidates (highest logit first, ties to the lower id): those whose
// probability is min_p of the most likely one's, of these top_k, of these the shortest prefix whose
// probability reaches top_p, as Hugging Face's warpers and vLLM do in that order; the perturbed
// score then chooses among what is left. When the candidates do not reach far enough the answer is
// "full logits needed", and the same rule runs over all of them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/step_plan.hpp"
#include "kernels/vocabulary/vocabulary_types.hpp"
#include "models/grid.hpp"

namespace troupe::engine {

// Candidates fetched for a request with top_p or min_p: enough for peaked distributions, 0.5 KiB a
// run.
inline constexpr int top_p_candidates = 64;

// Candidates per run that this request needs at first. Range: 0 .. vocabulary_candidates_max.
[[nodiscard]] int candidates_for(const sample_request& request) noexcept;

// One row over all canonical runs.
struct row_summaries {
  std::span<const kernels::run_summary> runs;     // canonical_runs
  std::span<const kernels::token_candidate> top;  // [canonical_runs][candidates]
  int candidates = 0;
  models::grid vocabulary;
};

// log of the sum of exp over the whole vocabulary, relative to nothing: logprob = logit - this.
[[nodiscard]] double log_sum_exp(std::span<const kernels::run_summary> runs) noexcept;

[[nodiscard]] bool all_finite(std::span<const kernels::run_summary> runs) noexcept;
[[nodiscard]] float highest_logit(std::span<const kernels::run_summary> runs) noexcept;

// nullopt: the candidates end before min_p, top_k or top_p (or the logprobs asked for) do.
// `sequence` of the result is left to the caller.
[[nodiscard]] std::optional<sampled_token> sample(const sample_request& request,
                                                  const row_summaries& summaries);

// The same from every logit of the vocabulary. Shape: logits [vocab_size].
[[nodiscard]] sampled_token sample_from_all(const sample_request& request,
                                            std::span<const kernels::run_summary> runs,
                                            std::span<const float> logits);

// Log probabilities under the model's own logits, of a token that was drawn from changed ones.
// `summaries` holds the candidates that the request's logprobs need.
void set_logprobs(const sample_request& request, const row_summaries& summaries, float logit,
                  sampled_token& token);

}  // namespace troupe::engine
