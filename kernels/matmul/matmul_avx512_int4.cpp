// int4 by VPDPBUSD: the halves of a line of bytes are two lines of codes, a group's eight products
// of each row one chain of integers, and the groups one chain of fused multiply-adds in float32.
#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"
#include "kernels/packed_integers.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TROUPE_AVX512_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace troupe::kernels::matmul_detail {
namespace {

using packing::int4_step_bytes;
using packing::integer_line_bytes;

constexpr int group_lines = 8;
constexpr std::int64_t step_lines = int4_step_bytes / integer_line_bytes;
constexpr std::int64_t rows_at_once = 8;
// Of weights that pass once. A step is so much work that few of them are under way at a time, too
// few for the memory: without this a thread reads 22 GB/s where it could 40, with it 33.
constexpr std::int64_t stream_ahead_bytes = 2 * int4_step_bytes;

// Lines of the next panel that one pass over this one brings, of each step of each block.
struct fetched_lines {
  const std::byte* next = nullptr;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Conversions under a full mask: GCC 12 takes the operand that the plain ones leave out for an
// uninitialised one (its bug 105593).
constexpr __mmask16 all = 0xFFFF;

// The codes of a step's two groups: the halves of its bytes, each line read once.
struct step_codes {
  __m512i group[2][group_lines];
};

TROUPE_AVX512_VNNI inline void load_codes(const std::byte* step, step_codes& codes) {
  const __m512i low = _mm512_set1_epi8(0x0F);
#pragma GCC unroll 8
  for (int i = 0; i < group_lines; ++i) {
    const __m512i both =
        _mm512_load_si512(step + packing::int4_codes_offset + i * integer_line_bytes);
    codes.group[0][i] = _mm512_and_si512(both, low);
    codes.group[1][i] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
  }
}

// sum + (the products of one group of 32 inputs, from `offset` on) * scale.
TROUPE_AVX512_VNNI inline __m512 add_group(__m512 sum, const __m512i (&codes)[group_lines],
                                           const std::byte* input, std::int32_t offset,
                                           const std::byte* scales) {
  __m512i products = _mm512_set1_epi32(offset);
#pragma GCC unroll 8
  for (int i = 0; i < group_lines; ++i) {
    int quad = 0;
    std::memcpy(&quad, input + i * 4, sizeof(quad));
    products = _mm512_dpbusd_epi32(products, codes[i], _mm512_set1_epi32(quad));
  }
  const __m512 scale =
      _mm512_maskz_cvtph_ps(all, _mm256_load_si256(reinterpret_cast<const __m256i*>(scales)));
  return _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(all, products), scale, sum);
}

template <int rows>
TROUPE_AVX512_VNNI inline void multiply_step(const panel& work, const std::byte* input,
                                             const std::int32_t* offsets, const std::byte* step,
                                             __m512 (&sums)[rows]) {
  constexpr std::int64_t group_inputs = packing::int4_group_inputs;
  step_codes codes;
  load_codes(step, codes);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    const std::byte* const own = input + r * work.input_row_bytes;
    const std::int32_t* const starts = offsets + r * work.group_offsets_stride;
    sums[r] = add_group(sums[r], codes.group[0], own, starts[0], step);
    sums[r] =
        add_group(sums[r], codes.group[1], own + group_inputs, starts[1], step + tile_outputs * 2);
  }
}

inline void fetch_step(const std::byte* step) {
#pragma GCC unroll 9
  for (std::int64_t line = 0; line < step_lines; ++line) {
    __builtin_prefetch(step + line * integer_line_bytes, 0, 0);
  }
}

// Several blocks pass side by side where the sums leave room: each is a stream that the hardware
// follows, and one alone does not keep the memory busy.
template <int rows, int blocks, bool streams>
TROUPE_AVX512_VNNI void multiply(const panel& work, std::int64_t row, std::int64_t block,
                                 fetched_lines fetched) {
  const std::byte* input = work.input + row * work.input_row_bytes;
  const std::int32_t* offsets = work.group_offsets + row * work.group_offsets_stride;
  const float* from = work.sums + row * work.sums_stride + block * tile_outputs;
  float* to = work.target + row * work.target_stride + block * tile_outputs;
  __m512 sums[blocks][rows];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      sums[b][r] = work.resume ? _mm512_loadu_ps(from + r * work.sums_stride + b * tile_outputs)
                               : _mm512_setzero_ps();
    }
  }
  const std::byte* step = work.weights + block * work.block_bytes;
  for (std::int64_t i = 0; i < work.steps; ++i) {
    if constexpr (!streams) {
      for (std::int64_t line = fetched.first; line < fetched.last; ++line) {
        __builtin_prefetch(fetched.next + line * integer_line_bytes, 0, 3);
      }
      fetched.next += int4_step_bytes;
    }
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      if constexpr (streams) fetch_step(step + b * work.block_bytes + stream_ahead_bytes);
      multiply_step<rows>(work, input, offsets, step + b * work.block_bytes, sums[b]);
    }
    input += packing::integer_step_inputs;
    offsets += 2;
    step += int4_step_bytes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      _mm512_storeu_ps(to + r * work.target_stride + b * tile_outputs, sums[b][r]);
    }
  }
}

template <int rows, bool streams>
void multiply_rows(const panel& work, std::int64_t row, fetched_lines fetched) {
  std::int64_t block = 0;
  if constexpr (rows <= 2) {
    for (; block + block_max <= work.blocks; block += block_max) {
      multiply<rows, block_max, streams>(work, row, block, fetched);
    }
  }
  for (; block < work.blocks; ++block) {
    multiply<rows, 1, streams>(work, row, block, fetched);
    if (!streams) fetched.next += work.block_bytes;
  }
}

template <bool streams>
void multiply_pass(const panel& work, std::int64_t row, fetched_lines fetched) {
  switch (std::min(rows_at_once, work.rows - row)) {
    case 1:
      return multiply_rows<1, streams>(work, row, fetched);
    case 2:
      return multiply_rows<2, streams>(work, row, fetched);
    case 3:
      return multiply_rows<3, streams>(work, row, fetched);
    case 4:
      return multiply_rows<4, streams>(work, row, fetched);
    case 5:
      return multiply_rows<5, streams>(work, row, fetched);
    case 6:
      return multiply_rows<6, streams>(work, row, fetched);
    case 7:
      return multiply_rows<7, streams>(work, row, fetched);
    default:
      return multiply_rows<8, streams>(work, row, fetched);
  }
}

void multiply_panel(const panel& work) {
  const std::int64_t passes = divide_up(work.rows, rows_at_once);
  if (passes == 1) return multiply_pass<true>(work, 0, {});
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    multiply_pass<false>(
        work, pass * rows_at_once,
        {work.next_weights, step_lines * pass / passes, step_lines * (pass + 1) / passes});
  }
}

}  // namespace

panel_kernel avx512_int4_panel() { return {multiply_panel, rows_at_once}; }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_kernel avx512_int4_panel() { return {}; }
}  // namespace troupe::kernels::matmul_detail

#endif
