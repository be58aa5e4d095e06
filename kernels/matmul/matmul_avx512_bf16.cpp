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

template <int rows, int blocks>
TROUPE_AVX512_BF16 void multiply(const panel& work, std::int64_t row) {
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
  for (std::int64_t pair = 0; pair < work.steps * pairs_of_step; ++pair) {
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

template <int blocks>
void multiply_rows(const panel& work) {
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    switch (std::min(rows_at_once, work.rows - row)) {
      case 1:
        multiply<1, blocks>(work, row);
        break;
      case 2:
        multiply<2, blocks>(work, row);
        break;
      case 3:
        multiply<3, blocks>(work, row);
        break;
      case 4:
        multiply<4, blocks>(work, row);
        break;
      case 5:
        multiply<5, blocks>(work, row);
        break;
      default:
        multiply<6, blocks>(work, row);
        break;
    }
  }
}

void multiply_panel(const panel& work) {
  switch (work.blocks) {
    case 1:
      multiply_rows<1>(work);
      break;
    case 2:
      multiply_rows<2>(work);
      break;
    case 3:
      multiply_rows<3>(work);
      break;
    default:
      multiply_rows<4>(work);
      break;
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
