// Weights as integers: how packed_tensor quantises and lays out one run of 16 outputs.
//
// Both kinds cut a run into steps of 64 inputs, the last padded with the code of 0. Every operation
// is an IEEE multiplication, addition or comparison of one weight by itself or of one output's
// weights in ascending order, never fused: the same codes on every machine and for every slice.
//   int8_runs    a step is 1 KiB: [16 quads of inputs][16 outputs][4], each code + 128. w = code *
//                scale, scale = the run's largest magnitude / 127.
//   int4_groups  a step is 576 bytes: the scales of both groups of 32 inputs as float16 [2][16];
//                then 8 lines of [16 outputs][4], each code + 8, the first group in the low halves
//                of the bytes, the second in the high ones. w = code * scale * factor, where factor
//                is a power of two that keeps the run's scales within float16. Of five steps
//                between codes the one that leaves the least squared error is taken.
// Behind the last run of a block: float32 [runs][16], the scales or factors. A run that holds an
// infinity or NaN has NaN there, and with it every product.
// Source: the choice of int4's step by least squares as in ggml's make_qx_quants.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.hpp"

namespace troupe::kernels::packing {

inline constexpr std::int64_t integer_step_inputs = 64;
inline constexpr std::int64_t int8_step_bytes = 1024;
inline constexpr std::int64_t int4_step_bytes = 576;
inline constexpr std::int64_t int4_group_inputs = 32;
inline constexpr std::int64_t int4_codes_offset = 64;   // within a step, behind the scales
inline constexpr std::int64_t integer_line_bytes = 64;  // of 16 outputs by four inputs
[[nodiscard]] constexpr std::int64_t integer_step_bytes(quantisation kind) noexcept {
  return kind == quantisation::int4_groups ? int4_step_bytes : int8_step_bytes;
}
// Of a run.
[[nodiscard]] constexpr std::int64_t integer_steps(std::int64_t inputs) noexcept {
  return (inputs + integer_step_inputs - 1) / integer_step_inputs;
}
// Sums of 127 * 127 a product, and 128 times the sum of the activations, stay below 2^31.
inline constexpr std::int64_t integer_run_inputs_max = std::int64_t{1} << 17;

// Shape: tile float32 [inputs][16], aligned to 64 bytes -> whole steps, scales [16].
void quantise_int8(const float* tile, std::int64_t inputs, std::byte* steps, float* scales);

// Shape: tile as above -> whole steps, factors [16].
void quantise_int4(const float* tile, std::int64_t inputs, std::byte* steps, float* factors);

// Code `input` (of the run) of one of the 16 outputs, without its offset.
[[nodiscard]] int int8_code(const std::byte* steps, std::int64_t input, std::int64_t output);
[[nodiscard]] int int4_code(const std::byte* steps, std::int64_t input, std::int64_t output);
// The scale of the group that holds `input`, without the factor.
[[nodiscard]] float int4_scale(const std::byte* steps, std::int64_t input, std::int64_t output);

}  // namespace troupe::kernels::packing
