// Fused multiply-adds in float32, for AVX2 and AVX-512; bfloat16 weights are widened on the way.
// One chain an output over the inputs, so the number of lanes leaves the bits alone.
#include <algorithm>

#include "kernels/matmul/matmul_work.hpp"
#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/matmul_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::matmul_detail::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using lanes_tag = hn::ScalableTag<float>;
using lanes = hn::Vec<lanes_tag>;
constexpr lanes_tag tag;
constexpr int width = static_cast<int>(hn::MaxLanes(lanes_tag()));
constexpr int vectors = 16 / width;  // of one block of outputs
// Sums fill most of the registers: 24 of 32, or 12 of 16.
constexpr int rows_at_once = 6;
constexpr int blocks_at_once(int rows) {
  return width == 16 ? 4 : rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

// Adds the products of one line of 64 bytes of each block: one input of float32, two of bfloat16.
template <dtype type, int rows, int blocks>
HWY_INLINE void multiply_line(const panel& work, const std::byte* input, const std::byte* weights,
                              lanes (&sum)[rows][blocks * vectors]) {
  constexpr int inputs = type == dtype::float32 ? 1 : 2;
  const hn::RebindToUnsigned<lanes_tag> words;
  lanes weight[blocks * vectors];
#pragma GCC unroll 2
  for (int i = 0; i < inputs; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < blocks * vectors; ++v) {
      const std::byte* from = weights + v / vectors * work.block_bytes + v % vectors * width * 4;
      if constexpr (type == dtype::float32) {
        weight[v] = hn::Load(tag, reinterpret_cast<const float*>(from));
      } else {
        const auto pair = hn::Load(words, reinterpret_cast<const std::uint32_t*>(from));
        weight[v] = hn::BitCast(
            tag, i == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(words, 0xFFFF0000U)));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const auto* row = reinterpret_cast<const float*>(input + r * work.input_row_bytes);
      const lanes value = hn::Set(tag, row[i]);
#pragma GCC unroll 8
      for (int v = 0; v < blocks * vectors; ++v) {
        sum[r][v] = hn::MulAdd(value, weight[v], sum[r][v]);
      }
    }
  }
}

template <dtype type, int rows, int blocks>
void multiply(const panel& work, const std::byte* input, const std::byte* weights,
              const float* sums, float* target) {
  constexpr std::int64_t lines_of_step = type == dtype::float32 ? 1 : 16;
  constexpr std::int64_t line_inputs = type == dtype::float32 ? 1 : 2;
  lanes sum[rows][blocks * vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < blocks * vectors; ++v) {
      sum[r][v] =
          work.resume ? hn::LoadU(tag, sums + r * work.sums_stride + v * width) : hn::Zero(tag);
    }
  }
  for (std::int64_t line = 0; line < work.steps * lines_of_step; ++line) {
    multiply_line<type, rows, blocks>(work, input, weights, sum);
    input += line_inputs * 4;
    weights += 64;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < blocks * vectors; ++v) {
      hn::StoreU(sum[r][v], tag, target + r * work.target_stride + v * width);
    }
  }
}

template <dtype type, int rows>
void multiply_blocks(const panel& work, std::int64_t row) {
  const std::byte* input = work.input + row * work.input_row_bytes;
  const float* sums = work.sums + row * work.sums_stride;
  float* target = work.target + row * work.target_stride;
  constexpr int most = blocks_at_once(rows);
  std::int64_t block = 0;
  const auto weights = [&] { return work.weights + block * work.block_bytes; };
  for (; block + most <= work.blocks; block += most) {
    multiply<type, rows, most>(work, input, weights(), sums + block * tile_outputs,
                               target + block * tile_outputs);
  }
  for (; block < work.blocks; ++block) {
    multiply<type, rows, 1>(work, input, weights(), sums + block * tile_outputs,
                            target + block * tile_outputs);
  }
}

template <dtype type>
void multiply_panel(const panel& work) {
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    switch (std::min<std::int64_t>(rows_at_once, work.rows - row)) {
      case 1:
        multiply_blocks<type, 1>(work, row);
        break;
      case 2:
        multiply_blocks<type, 2>(work, row);
        break;
      case 3:
        multiply_blocks<type, 3>(work, row);
        break;
      case 4:
        multiply_blocks<type, 4>(work, row);
        break;
      case 5:
        multiply_blocks<type, 5>(work, row);
        break;
      default:
        multiply_blocks<type, 6>(work, row);
        break;
    }
  }
}

void add_vectors(float* to, const float* left, const float* right, std::int64_t count) {
  for (std::int64_t i = 0; i + width <= count; i += width) {
    hn::StoreU(hn::Add(hn::LoadU(tag, left + i), hn::LoadU(tag, right + i)), tag, to + i);
  }
  for (std::int64_t i = count / width * width; i < count; ++i) to[i] = left[i] + right[i];
}

}  // namespace

panel_kernel panel_of(dtype weights) {
  return {
      weights == dtype::float32 ? multiply_panel<dtype::float32> : multiply_panel<dtype::bfloat16>,
      rows_at_once};
}

add_function adder() { return add_vectors; }

}  // namespace troupe::kernels::matmul_detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels::matmul_detail {

panel_kernel fma_panel(instruction_path path, dtype weights) {
  return TROUPE_SIMD_CALL(path, panel_of, weights);
}

add_function vector_add(instruction_path path) { return TROUPE_SIMD_CALL(path, adder); }

}  // namespace troupe::kernels::matmul_detail
#endif
