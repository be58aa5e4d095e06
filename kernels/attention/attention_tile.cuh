// One warp's arithmetic: 16 query rows against tiles of 64 positions that lie in shared memory. The
// same code in every attention kernel, so that a query has the same bits in all of them.
#pragma once

#include "kernels/attention/attention.cuh"
#include "kernels/cuda/mma.cuh"

namespace troupe::kernels::cuda {

inline constexpr int attention_tile_positions = 64;

// Elements from row to row of a K or V tile: 16 bytes more than a row has, so that the eight rows
// of one matrix load lie in different banks.
template <int HeadDim>
inline constexpr int attention_pitch = HeadDim + 8;

__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], const bfloat16* at) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4],
                                                         const bfloat16* at) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ std::uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value = __fadd_rn(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
  return __fadd_rn(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
}

// Sums over some positions for the two rows that a lane holds (l/4 and l/4 + 8): of exp2(s -
// maximum) and of that times V.
template <int HeadDim>
struct attention_sums {
  float maximum[2];
  float weight[2];
  float out[HeadDim / 8][4];

  __device__ __forceinline__ void clear() {
    maximum[0] = maximum[1] = -INFINITY;
    weight[0] = weight[1] = 0.0F;
#pragma unroll
    for (int i = 0; i < HeadDim / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) out[i][j] = 0.0F;
    }
  }
};

// What the two rows of a lane may see: positions [first, last].
struct visible_range {
  std::int32_t first[2];
  std::int32_t last[2];
};

// To 2 units in the last place; what is smaller than a normal number is zero.
__device__ __forceinline__ float power_of_two(float exponent) {
  float result = 0.0F;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(exponent));
  return result;
}

// exp2 of a half's scores, scaled and relative to their maximum, in place, and their sum over the
// row. `scale_log2` is positive.
template <int Columns>
__device__ __forceinline__ void weigh(float (&scores)[Columns][4], int half, float scale_log2,
                                      float& maximum, float& weight) {
  float largest = -INFINITY;
#pragma unroll
  for (int j = 0; j < Columns; ++j) {
    largest = fmaxf(largest, fmaxf(scores[j][half * 2], scores[j][half * 2 + 1]));
  }
  maximum = __fmul_rn(quad_max(largest), scale_log2);
  // Nothing is seen: any finite reference gives weights of zero.
  const float reference = maximum == -INFINITY ? 0.0F : maximum;
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < Columns; ++j) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      float& score = scores[j][half * 2 + k];
      score = power_of_two(__fmaf_rn(score, scale_log2, -reference));
      sum = __fadd_rn(sum, score);
    }
  }
  weight = quad_sum(sum);
}

// What a row does not see of 8 positions from `position` on becomes minus infinity.
__device__ __forceinline__ void hide_unseen(float (&d)[4], std::int32_t position,
                                            const visible_range& seen) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto at = position + static_cast<std::int32_t>(threadIdx.x % 4 * 2) + i % 2;
    if (at < seen.first[i / 2] || at > seen.last[i / 2]) d[i] = -INFINITY;
  }
}

// Scores of 8 positions from `column` on of a tile, not scaled; what is not seen is minus infinity.
// Shape: query A fragments of HeadDim / 16 steps; keys [64][pitch].
template <int HeadDim>
__device__ __forceinline__ void score_columns(float (&d)[4],
                                              const std::uint32_t (&query)[HeadDim / 16][4],
                                              const bfloat16* keys, int column,
                                              std::int64_t tile_position,
                                              const visible_range& seen) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  d[0] = d[1] = d[2] = d[3] = 0.0F;
  // Lane l names the row of matrix l/8 that it addresses: 8 positions, 8 dimensions each.
  const bfloat16* const row = keys + (column + lane % 8) * attention_pitch<HeadDim> + lane / 8 * 8;
#pragma unroll
  for (int step = 0; step < HeadDim / 16; step += 2) {
    std::uint32_t b[4];
    load_matrices(b, row + step * 16);
    mma_step(d, query[step], b[0], b[1]);
    mma_step(d, query[step + 1], b[2], b[3]);
  }
  hide_unseen(d, static_cast<std::int32_t>(tile_position) + column, seen);
}

inline constexpr int attention_columns = attention_tile_positions / 8;

// The weighed scores of 16 positions as an A fragment.
__device__ __forceinline__ void pack_step(const float (&weights)[attention_columns][4], int step,
                                          std::uint32_t (&a)[4]) {
  const float(&left)[4] = weights[2 * step];
  const float(&right)[4] = weights[2 * step + 1];
  a[0] = pack_pair(left[0], left[1]);
  a[1] = pack_pair(left[2], left[3]);
  a[2] = pack_pair(right[0], right[1]);
  a[3] = pack_pair(right[2], right[3]);
}

// low, high += weights times V, over 16 positions: dimensions `dim` .. dim + 7 and the next 8.
template <int HeadDim>
__device__ __forceinline__ void add_values(float (&low)[4], float (&high)[4],
                                           const std::uint32_t (&weights)[4],
                                           const bfloat16* values, int step, int dim) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  // Matrices: positions 0-7 and 8-15 of the step by dimensions 0-7, then by dimensions 8-15.
  const int row = step * 16 + lane / 8 % 2 * 8 + lane % 8;
  std::uint32_t b[4];
  load_matrices_transposed(b, values + row * attention_pitch<HeadDim> + lane / 16 * 8 + dim);
  mma_step(low, weights, b[0], b[1]);
  mma_step(high, weights, b[2], b[3]);
}

// The sums of one tile alone, by one warp. Shape: keys, values [64][pitch].
template <int HeadDim>
__device__ __forceinline__ void attend_tile(attention_sums<HeadDim>& sums,
                                            const std::uint32_t (&query)[HeadDim / 16][4],
                                            const bfloat16* keys, const bfloat16* values,
                                            std::int64_t tile_position, const visible_range& seen,
                                            float scale_log2) {
  float scores[attention_columns][4];
#pragma unroll
  for (int j = 0; j < attention_columns; ++j) {
    score_columns<HeadDim>(scores[j], query, keys, j * 8, tile_position, seen);
  }
  weigh(scores, 0, scale_log2, sums.maximum[0], sums.weight[0]);
  weigh(scores, 1, scale_log2, sums.maximum[1], sums.weight[1]);
#pragma unroll
  for (int i = 0; i < HeadDim / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums.out[i][j] = 0.0F;
  }
#pragma unroll
  for (int step = 0; step < attention_tile_positions / 16; ++step) {
    std::uint32_t a[4];
    pack_step(scores, step, a);
#pragma unroll
    for (int i = 0; i < HeadDim / 8; i += 2) {
      add_values<HeadDim>(sums.out[i], sums.out[i + 1], a, values, step, i * 8);
    }
  }
}

// How two sums over disjoint positions become one; `later` stands right.
struct attention_merge {
  float maximum;
  float left;  // factors of the two
  float right;
};
__device__ __forceinline__ attention_merge merge_of(float earlier, float later) {
  attention_merge merge{fmaxf(earlier, later), 1.0F, 0.0F};
  if (later == -INFINITY) return merge;  // nothing was seen there
  merge.left = power_of_two(__fsub_rn(earlier, merge.maximum));
  merge.right = power_of_two(__fsub_rn(later, merge.maximum));
  return merge;
}
// The sign of a zero may depend on what was joined; result_of() takes it away.
__device__ __forceinline__ float merged(const attention_merge& merge, float earlier, float later) {
  return __fmaf_rn(later, merge.right, __fmul_rn(earlier, merge.left));
}

// The next tile joins those before it.
template <int HeadDim>
__device__ __forceinline__ void join_tile(attention_sums<HeadDim>& total,
                                          const attention_sums<HeadDim>& tile) {
  attention_merge by[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    by[half] = merge_of(total.maximum[half], tile.maximum[half]);
    total.maximum[half] = by[half].maximum;
    total.weight[half] = merged(by[half], total.weight[half], tile.weight[half]);
  }
  // Mostly the maximum stays, and what was summed so far as it is.
  if (__all_sync(0xFFFFFFFFU, by[0].left == 1.0F && by[1].left == 1.0F) != 0) {
#pragma unroll
    for (int i = 0; i < HeadDim / 8; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        total.out[i][k] = __fmaf_rn(tile.out[i][k], by[k / 2].right, total.out[i][k]);
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < HeadDim / 8; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      total.out[i][k] = merged(by[k / 2], total.out[i][k], tile.out[i][k]);
    }
  }
}

}  // namespace troupe::kernels::cuda
