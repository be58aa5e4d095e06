// Condenses rows of logits, per canonical run of the vocabulary, to what sampling needs.
//
// A run's summary depends on the run's logits and the row's parameters alone: not on what else the
// rank owns, the batch or the threads. The same on AVX2 and AVX-512.
//
//   kernels::summarise_vocabulary(path, pool, {.logits = logits, .run_ends = ends,
//       .first_token_id = 0, .rows = rows, .candidates = 64, .summaries = runs, .top = top});
#pragma once

#include <cstdint>
#include <span>

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Smaller temperatures count as this one: its inverse times any sensible logit is still finite.
inline constexpr float temperature_min = 1e-6F;

// Shape: args.logits float32 [rows][local vocabulary], rows strided; run_ends ascending (empty runs
// allowed), the last = columns; rows one a row; summaries [rows][runs]; top
// [rows][runs][candidates]. Range: temperature >= 0, a number; candidates 0 ..
// vocabulary_candidates_max; token ids below 2^31. A row with a NaN or infinite logit has finite =
// false in that run; its other fields then say nothing, and its candidates are -1. Sums of exp: 32
// partial sums, token i of the run in sum i modulo 32, folded every 2048 tokens. Cost: one read of
// the logits from memory and one from the cache; an exponential a token, two when tempered; noise
// only where a token could still win.
void summarise_vocabulary(instruction_path path, thread_pool& pool,
                          const summarise_vocabulary_args& args);

// Plain loops in double; the noise is gumbel_noise().
void summarise_vocabulary_reference(const summarise_vocabulary_args& args);

// The 32 random bits of one token: word token_id % 4 of Philox4x32-10 at
//   counter = {token_id / 4, choice, lower half of token_index, upper half of token_index}
//   key     = {lower half of seed, upper half of seed}.
[[nodiscard]] std::uint32_t noise_bits(const sampling_row& row, std::int32_t token_id) noexcept;

// 1 / temperature in float32, after temperature_min. Range: temperature > 0.
[[nodiscard]] float inverse_temperature(float temperature) noexcept;

// logit * inverse_temperature + gumbel_noise, two float32 roundings as in summarise_vocabulary; the
// logit itself when greedy. The token with the highest score wins, ties to the lower id.
[[nodiscard]] float perturbed_score(const sampling_row& row, std::int32_t token_id,
                                    float logit) noexcept;

// The vector code's noise of tokens [first_token_id, first_token_id + noise.size()): the bits of
// gumbel_noise().
void fill_gumbel_noise(instruction_path path, const sampling_row& row, std::int32_t first_token_id,
                       std::span<float> noise);

}  // namespace troupe::kernels
