// Vector parts of the attention kernels that work in tiles, for AMX and AVX512-BF16: layouts of
// tiles, 2^x. Included by their sources only.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define TROUPE_TILES_POSSIBLE 1
#else
#define TROUPE_TILES_POSSIBLE 0
#endif

#if TROUPE_TILES_POSSIBLE

#ifndef __clang__
// The intrinsics of GCC 12 pass undefined registers on purpose and are warned about when inlined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <cstdint>

// Per function, not per file: inline functions of the standard library must not be compiled with
// these and then be shared with code for other machines.
#define TROUPE_TILES_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define TROUPE_TILES_INLINE TROUPE_TILES_TARGET inline __attribute__((always_inline))

namespace troupe::kernels::attention_detail::tiles {

inline constexpr std::int64_t tile_bytes = 1024;
inline constexpr std::int64_t tile_rows = 16;
inline constexpr std::int64_t tile_row_bytes = 64;
inline constexpr std::int64_t tile_depth = 32;  // bfloat16 inputs of one multiplication

// 16 x 16 elements of 32 bits: four rounds of pairing rows 1, 2, 4 and 8 apart.
TROUPE_TILES_INLINE void transpose(__m512i (&rows)[16]) {
  __m512i a[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i b[16];
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  // b[4 g + j] holds in its lane l, for column 4 l + j, the rows 4 g .. 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i c0 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
    const __m512i c1 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
    const __m512i c2 = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xDD);
    const __m512i c3 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xDD);
    rows[j] = _mm512_shuffle_i32x4(c0, c1, 0x88);
    rows[8 + j] = _mm512_shuffle_i32x4(c0, c1, 0xDD);
    rows[4 + j] = _mm512_shuffle_i32x4(c2, c3, 0x88);
    rows[12 + j] = _mm512_shuffle_i32x4(c2, c3, 0xDD);
  }
}

// 2^x for x <= 0; exactly 1 at 0, exactly 0 below -125, NaN of NaN. The polynomial is the minimax
// fit to 2^f on [-1/2, 1/2] with constant term 1: relative error 1.1e-7 in exact arithmetic.
TROUPE_TILES_INLINE __m512 power_of_two(__m512 x) {
  const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-125.0F), _CMP_NLT_UQ);
  // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
  const __m512 magic = _mm512_set1_ps(12582912.0F);
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_set1_ps(0x1.5bba14p-10F);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.3cea88p-7F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c6b752p-5F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebf9bcp-3F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e42ap-1F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  return _mm512_castsi512_ps(_mm512_maskz_add_epi32(large, _mm512_castps_si512(p), exponent));
}

// A finite stand-in for a maximum of -infinity: differences from it stay -infinity.
TROUPE_TILES_INLINE __m512 finite_base(__m512 maximum) {
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  const __mmask16 none = _mm512_cmp_ps_mask(maximum, lowest, _CMP_EQ_OQ);
  return _mm512_mask_mov_ps(maximum, none, _mm512_setzero_ps());
}

// bfloat16 of 32 floats in order, round to nearest even.
TROUPE_TILES_INLINE __m512i to_bfloat16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// The first `count` of 32 or 16 elements.
TROUPE_TILES_INLINE __mmask32 first_of_32(std::int64_t count) {
  return count >= 32 ? 0xFFFFFFFFU : (__mmask32{1} << count) - 1;
}
TROUPE_TILES_INLINE __mmask16 first_of_16(std::int64_t count) {
  return count >= 16  ? static_cast<__mmask16>(0xFFFF)
         : count <= 0 ? static_cast<__mmask16>(0)
                      : static_cast<__mmask16>((1U << count) - 1);
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
