// Dot products within 32-bit lanes, 16 outputs a vector, one chain an output over the inputs: pairs
// of bfloat16 by VDPBF16PS, quads of int8 by VPDPBUSD. For both a line of weights is 64 bytes.
#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TROUPE_AVX512_DOT __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx512vnni")))

namespace troupe::kernels::matmul_detail {
namespace {

constexpr std::int64_t lines_of_step = 16;
constexpr std::int64_t line_bytes = 64;
constexpr std::int64_t rows_at_once = 6;  // by 4 blocks: 24 of 32 registers are sums

struct bfloat16_pairs {
  TROUPE_AVX512_DOT static __m512i add(__m512i sum, __m512i input, __m512i weights) {
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum),
                                                reinterpret_cast<__m512bh>(input),
                                                reinterpret_cast<__m512bh>(weights)));
  }
};
struct int8_quads {
  TROUPE_AVX512_DOT static __m512i add(__m512i sum, __m512i input, __m512i weights) {
    return _mm512_dpbusd_epi32(sum, weights, input);
  }
};

// `fetches`: blocks, from `fetched` on, whose weights of the next panel are brought meanwhile.
template <class Dot, int rows, int blocks, int fetches>
TROUPE_AVX512_DOT void multiply(const panel& work, std::int64_t row, std::int64_t fetched) {
  const std::byte* input = work.input + row * work.input_row_bytes;
  const float* sums = work.sums + row * work.sums_stride;
  float* target = work.target + row * work.target_stride;
  __m512i sum[rows][blocks];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      sum[r][b] = work.resume ? _mm512_loadu_si512(sums + r * work.sums_stride + b * tile_outputs)
                              : _mm512_setzero_si512();
    }
  }
  const std::byte* weights = work.weights;
  const std::byte* next = work.next_weights + fetched * work.block_bytes;
  for (std::int64_t line = 0; line < work.steps * lines_of_step; ++line) {
#pragma GCC unroll 2
    for (int f = 0; f < fetches; ++f) __builtin_prefetch(next + f * work.block_bytes, 0, 3);
    next += line_bytes;
    __m512i weight[blocks];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      weight[b] = _mm512_load_si512(weights + b * work.block_bytes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      int bits = 0;
      std::memcpy(&bits, input + r * work.input_row_bytes, sizeof(bits));
      const __m512i value = _mm512_set1_epi32(bits);
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) sum[r][b] = Dot::add(sum[r][b], value, weight[b]);
    }
    input += 4;
    weights += line_bytes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      _mm512_storeu_si512(target + r * work.target_stride + b * tile_outputs, sum[r][b]);
    }
  }
}

template <class Dot, int blocks, int fetches>
void multiply_rows(const panel& work, std::int64_t row, std::int64_t fetched) {
  switch (std::min(rows_at_once, work.rows - row)) {
    case 1:
      return multiply<Dot, 1, blocks, fetches>(work, row, fetched);
    case 2:
      return multiply<Dot, 2, blocks, fetches>(work, row, fetched);
    case 3:
      return multiply<Dot, 3, blocks, fetches>(work, row, fetched);
    case 4:
      return multiply<Dot, 4, blocks, fetches>(work, row, fetched);
    case 5:
      return multiply<Dot, 5, blocks, fetches>(work, row, fetched);
    default:
      return multiply<Dot, 6, blocks, fetches>(work, row, fetched);
  }
}

// Several passes over a panel find it in L1, and the memory would idle: they bring the next one,
// each some of its blocks. A single pass is for the hardware's own look-ahead.
template <class Dot>
void multiply_four_blocks(const panel& work) {
  const std::int64_t passes = divide_up(work.rows, rows_at_once);
  std::int64_t fetched = passes == 1 ? block_max : 0;
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    const std::int64_t passes_left = passes - row / rows_at_once;
    if (fetched == block_max) {
      multiply_rows<Dot, 4, 0>(work, row, 0);
    } else if (block_max - fetched <= passes_left) {
      multiply_rows<Dot, 4, 1>(work, row, fetched);
      fetched += 1;
    } else {
      multiply_rows<Dot, 4, 2>(work, row, fetched);
      fetched += 2;
    }
  }
}

template <class Dot, int blocks>
void multiply_blocks(const panel& work) {
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    multiply_rows<Dot, blocks, 0>(work, row, 0);
  }
}

template <class Dot>
void multiply_panel(const panel& work) {
  switch (work.blocks) {
    case 1:
      return multiply_blocks<Dot, 1>(work);
    case 2:
      return multiply_blocks<Dot, 2>(work);
    case 3:
      return multiply_blocks<Dot, 3>(work);
    default:
      return multiply_four_blocks<Dot>(work);
  }
}

}  // namespace

panel_kernel avx512_bf16_panel() { return {multiply_panel<bfloat16_pairs>, rows_at_once}; }
panel_kernel avx512_int8_panel() { return {multiply_panel<int8_quads>, rows_at_once}; }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_kernel avx512_bf16_panel() { return {}; }
panel_kernel avx512_int8_panel() { return {}; }
}  // namespace troupe::kernels::matmul_detail

#endif
