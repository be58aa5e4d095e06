// What travels instead of logits: per canonical run of the vocabulary, enough to sample from the
// whole distribution and to give exact log probabilities.
//
// Sampling is by perturbed maximum (Gumbel-max): token v of a row scores logit(v) / temperature +
// g(seed, choice, token_index, v), and the highest score wins, ties to the lower id. The noise is
// a counter-based generator's, so the same request draws the same tokens at any batch and any
// number of ranks. Source: Gumbel 1954; Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3" (SC 2011), Philox4x32-10.
#pragma once

#include <cstdint>

namespace troupe::kernels {

inline constexpr int vocabulary_candidates_max = 1024;

// How one row of logits is to be sampled.
struct sampling_row {
  float temperature = 0.0F;  // 0: greedy; noise_best is then the maximum itself
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  std::uint64_t token_index = 0;  // index of the token to be drawn, counted from the prompt's end
};

struct token_candidate {
  std::int32_t token_id = -1;  // -1: no candidate (the run has fewer tokens)
  float logit = 0.0F;
};

// One run of one row. An empty run has maximum = -infinity, sums 0 and noise_best.token_id = -1.
struct run_summary {
  float maximum = 0.0F;           // of the logits
  float sum_exp = 0.0F;           // of exp(logit - maximum)
  float sum_exp_tempered = 0.0F;  // of exp((logit - maximum) / temperature); 0 when greedy
  float noise_best_score = 0.0F;  // highest perturbed score of the run
  token_candidate noise_best;
  bool finite = true;  // false: some logit was NaN or infinite
};

// The noise of one token: standard Gumbel, float32. Scalar twin of the kernels' vector code, for
// the few tokens that top-k or top-p left: the same bits on every path.
[[nodiscard]] float gumbel_noise(const sampling_row& row, std::int32_t token_id) noexcept;

}  // namespace troupe::kernels
