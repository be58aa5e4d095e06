// Pairs of bfloat16 by VDPBF16PS: 16 outputs a vector, one chain an output over the pairs of
// inputs.
#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TROUPE_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace troupe::kernels::matmul_detail {
namespace {

constexpr std::int64_t pairs_of_step = 16;
constexpr std::int64_t weight_row_bytes = 64;
constexpr std::int64_t rows_at_once = 6;  // by 4 blocks: 24 of 32 registers are sums

// `fetches`: blocks, from `fetched` on, whose weights of the next panel are brought meanwhile.
template <int rows, int blocks, int fetches>
TROUPE_AVX512_BF16 void multiply(const panel& work, std::int64_t row, std::int64_t fetched) {
  const std::byte* input = work.input + row * work.input_row_bytes;
  const float* sums = work.sums + row * work.sums_stride;
  float* target = work.target + row * work.target_stride;
  __m512 sum[rows][blocks];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      sum[r][b] = work.resume ? _mm512_loadu_ps(sums + r * work.sums_stride + b * tile_outputs)
                              : _mm512_setzero_ps();
    }
  }
  const std::byte* weights = work.weights;
  const std::byte* next = work.next_weights + fetched * work.block_bytes;
  for (std::int64_t pair = 0; pair < work.steps * pairs_of_step; ++pair) {
#pragma GCC unroll 2
    for (int f = 0; f < fetches; ++f) __builtin_prefetch(next + f * work.block_bytes, 0, 3);
    next += weight_row_bytes;
    __m512bh weight[blocks];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      weight[b] = reinterpret_cast<__m512bh>(_mm512_load_si512(weights + b * work.block_bytes));
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      int both = 0;
      std::memcpy(&both, input + r * work.input_row_bytes, sizeof(both));
      const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) sum[r][b] = _mm512_dpbf16_ps(sum[r][b], value, weight[b]);
    }
    input += 4;
    weights += weight_row_bytes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      _mm512_storeu_ps(target + r * work.target_stride + b * tile_outputs, sum[r][b]);
    }
  }
}

template <int blocks, int fetches>
void multiply_rows(const panel& work, std::int64_t row, std::int64_t fetched) {
  switch (std::min(rows_at_once, work.rows - row)) {
    case 1:
      return multiply<1, blocks, fetches>(work, row, fetched);
    case 2:
      return multiply<2, blocks, fetches>(work, row, fetched);
    case 3:
      return multiply<3, blocks, fetches>(work, row, fetched);
    case 4:
      return multiply<4, blocks, fetches>(work, row, fetched);
    case 5:
      return multiply<5, blocks, fetches>(work, row, fetched);
    default:
      return multiply<6, blocks, fetches>(work, row, fetched);
  }
}

// Several passes over a panel find it in L1, and the memory would idle: they bring the next one,
// each some of its blocks. A single pass is for the hardware's own look-ahead.
void multiply_four_blocks(const panel& work) {
  const std::int64_t passes = (work.rows + rows_at_once - 1) / rows_at_once;
  std::int64_t fetched = passes == 1 ? block_max : 0;
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    const std::int64_t passes_left = passes - row / rows_at_once;
    if (fetched == block_max) {
      multiply_rows<4, 0>(work, row, 0);
    } else if (block_max - fetched <= passes_left) {
      multiply_rows<4, 1>(work, row, fetched);
      fetched += 1;
    } else {
      multiply_rows<4, 2>(work, row, fetched);
      fetched += 2;
    }
  }
}

template <int blocks>
void multiply_blocks(const panel& work) {
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    multiply_rows<blocks, 0>(work, row, 0);
  }
}

void multiply_panel(const panel& work) {
  switch (work.blocks) {
    case 1:
      return multiply_blocks<1>(work);
    case 2:
      return multiply_blocks<2>(work);
    case 3:
      return multiply_blocks<3>(work);
    default:
      return multiply_four_blocks(work);
  }
}

}  // namespace

panel_function avx512_bf16_panel() { return multiply_panel; }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_function avx512_bf16_panel() { return nullptr; }
}  // namespace troupe::kernels::matmul_detail

#endif
