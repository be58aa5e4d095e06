// int8 and int4 for CPUs without AVX512-VNNI: by AVX-VNNI's VPDPBUSD where there is one, else by
// VPMADDWD on 16 bits, which is as exact. (VPMADDUBSW would saturate.)
#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"
#include "kernels/packed_integers.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define TROUPE_AVX2 __attribute__((target("avx2,fma,f16c,avxvnni")))

namespace troupe::kernels::matmul_detail {
namespace {

using packing::int4_step_bytes;
using packing::integer_line_bytes;

constexpr int group_lines = 8;
constexpr int int8_step_lines = 16;
constexpr std::int64_t rows_at_once = 4;

// Each 32-bit lane: sum + four codes, 0 .. 255, by four inputs.
struct by_vnni {
  TROUPE_AVX2 static __m256i add(__m256i sum, __m256i codes, __m256i inputs) {
    return _mm256_dpbusd_avx_epi32(sum, codes, inputs);
  }
};
struct by_madd {
  TROUPE_AVX2 static __m256i add(__m256i sum, __m256i codes, __m256i inputs) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(0xFF)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8));
    const __m256i odd =
        _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(inputs, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
  }
};

// Sums or codes of one row or line: 16 outputs.
struct output_lanes {
  __m256i low;
  __m256i high;
};

TROUPE_AVX2 inline output_lanes load_line(const void* from) {
  const auto* at = static_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

template <class Dot>
TROUPE_AVX2 inline void add_line(output_lanes& sums, const output_lanes& codes,
                                 const std::byte* input) {
  int quad = 0;
  std::memcpy(&quad, input, sizeof(quad));
  const __m256i inputs = _mm256_set1_epi32(quad);
  sums.low = Dot::add(sums.low, codes.low, inputs);
  sums.high = Dot::add(sums.high, codes.high, inputs);
}

// One row or a few by one block.
struct cells {
  const std::byte* input = nullptr;
  const std::int32_t* offsets = nullptr;  // int4
  const std::byte* weights = nullptr;
  const float* from = nullptr;
  float* to = nullptr;
};

template <class Dot, int rows>
TROUPE_AVX2 void multiply_int8(const panel& work, cells at) {
  output_lanes sums[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    sums[r] = work.resume ? load_line(at.from + r * work.sums_stride) : output_lanes{};
  }
  for (std::int64_t line = 0; line < work.steps * int8_step_lines; ++line) {
    const output_lanes codes = load_line(at.weights + line * integer_line_bytes);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      add_line<Dot>(sums[r], codes, at.input + r * work.input_row_bytes + line * 4);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    auto* const to = reinterpret_cast<__m256i*>(at.to + r * work.target_stride);
    _mm256_storeu_si256(to, sums[r].low);
    _mm256_storeu_si256(to + 1, sums[r].high);
  }
}

struct float_lanes {
  __m256 low;
  __m256 high;
};

// The products of the group in half `half` of the step's bytes, added to each row's sums.
template <class Dot, int rows>
TROUPE_AVX2 inline void add_group(const panel& work, const cells& at, int half,
                                  float_lanes (&sums)[rows]) {
  const __m256i low = _mm256_set1_epi8(0x0F);
  output_lanes products[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    products[r].low = _mm256_set1_epi32(at.offsets[r * work.group_offsets_stride + half]);
    products[r].high = products[r].low;
  }
  for (int line = 0; line < group_lines; ++line) {
    output_lanes codes =
        load_line(at.weights + packing::int4_codes_offset + line * integer_line_bytes);
    codes.low = _mm256_and_si256(_mm256_srli_epi16(codes.low, half * 4), low);
    codes.high = _mm256_and_si256(_mm256_srli_epi16(codes.high, half * 4), low);
    const std::byte* const quads = at.input + half * packing::int4_group_inputs + line * 4;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      add_line<Dot>(products[r], codes, quads + r * work.input_row_bytes);
    }
  }
  const auto* const scales = reinterpret_cast<const __m128i*>(at.weights + half * tile_outputs * 2);
  const __m256 scale_low = _mm256_cvtph_ps(_mm_loadu_si128(scales));
  const __m256 scale_high = _mm256_cvtph_ps(_mm_loadu_si128(scales + 1));
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    sums[r].low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[r].low), scale_low, sums[r].low);
    sums[r].high = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[r].high), scale_high, sums[r].high);
  }
}

template <class Dot, int rows>
TROUPE_AVX2 void multiply_int4(const panel& work, cells at) {
  float_lanes sums[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    const float* const from = at.from + r * work.sums_stride;
    sums[r] =
        work.resume ? float_lanes{_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)} : float_lanes{};
  }
  for (std::int64_t step = 0; step < work.steps; ++step) {
    add_group<Dot, rows>(work, at, 0, sums);
    add_group<Dot, rows>(work, at, 1, sums);
    at.input += packing::integer_step_inputs;
    at.offsets += 2;
    at.weights += int4_step_bytes;
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    float* const to = at.to + r * work.target_stride;
    _mm256_storeu_ps(to, sums[r].low);
    _mm256_storeu_ps(to + 8, sums[r].high);
  }
}

template <class Dot, quantisation kind, int rows>
void multiply(const panel& work, const cells& at) {
  if constexpr (kind == quantisation::int8_runs) {
    multiply_int8<Dot, rows>(work, at);
  } else {
    multiply_int4<Dot, rows>(work, at);
  }
}

template <class Dot, quantisation kind>
void multiply_panel(const panel& work) {
  for (std::int64_t row = 0; row < work.rows; row += rows_at_once) {
    for (std::int64_t block = 0; block < work.blocks; ++block) {
      cells at{.input = work.input + row * work.input_row_bytes,
               .weights = work.weights + block * work.block_bytes,
               .from = work.sums + row * work.sums_stride + block * tile_outputs,
               .to = work.target + row * work.target_stride + block * tile_outputs};
      if (kind == quantisation::int4_groups) {
        at.offsets = work.group_offsets + row * work.group_offsets_stride;
      }
      switch (std::min(rows_at_once, work.rows - row)) {
        case 1:
          multiply<Dot, kind, 1>(work, at);
          break;
        case 2:
          multiply<Dot, kind, 2>(work, at);
          break;
        case 3:
          multiply<Dot, kind, 3>(work, at);
          break;
        default:
          multiply<Dot, kind, 4>(work, at);
          break;
      }
    }
  }
}

template <class Dot>
panel_kernel panel_of(quantisation kind) {
  return {kind == quantisation::int8_runs ? multiply_panel<Dot, quantisation::int8_runs>
                                          : multiply_panel<Dot, quantisation::int4_groups>,
          rows_at_once};
}

}  // namespace

panel_kernel avx_vnni_panel(quantisation kind) { return panel_of<by_vnni>(kind); }
panel_kernel avx2_integer_panel(quantisation kind) { return panel_of<by_madd>(kind); }

}  // namespace troupe::kernels::matmul_detail

#else

namespace troupe::kernels::matmul_detail {
panel_kernel avx_vnni_panel(quantisation) { return {}; }
panel_kernel avx2_integer_panel(quantisation) { return {}; }
}  // namespace troupe::kernels::matmul_detail

#endif
