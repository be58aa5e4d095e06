// A warpgroup's sums of one run: chains of wgmma over segments, added in order.
#pragma once

#include "kernels/matmul/wgmma_ring.cuh"
#include "kernels/matmul/wgmma_tiles.cuh"

namespace troupe::kernels::cuda {

// A thread's two rows of the tile have a scale each.
struct row_scales {
  segment_scales low;
  segment_scales high;

  __device__ __forceinline__ row_scales(const matmul_kernel_args& args, int first_output)
      : row_scales(args.weights, {args.weights.outputs, args.fused != gate::none}, first_output,
                   group_warp() * 16 + lane_id() / 4) {}

 private:
  __device__ __forceinline__ row_scales(const matmul_weights& weights, const tile_rows& rows_of,
                                        int first_output, int row)
      : low(weights, rows_of.weight_row(first_output, row)),
        high(weights, rows_of.weight_row(first_output, row + 8)) {}
};

// total += segment times the scales of the thread's two rows.
template <int Count>
__device__ __forceinline__ void add_segment(float low, float high, const float (&segment)[Count],
                                            float (&total)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    total[i] = __fmaf_rn(i % 4 < 2 ? low : high, segment[i], total[i]);
  }
}

// total = the sum of the run's segments.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_run(ring<Shape>& from, int group,
                                             const matmul_weights& weights, int run,
                                             const row_scales& scales, float (&total)[Count]) {
  clear(total);
  const int segment_tiles = segment_inputs(weights) / matmul_k_tile;
  const int tiles = k_tiles_of(weights, run);
  auto padded = static_cast<int>(weights.padded_run_begin[run]);
  float segment[Count];
  clear(segment);
  for (int tile = 0; tile < tiles; tile += segment_tiles) {
    multiply_segment(from, group, min(segment_tiles, tiles - tile), segment);
    add_segment(scales.low.at(padded), scales.high.at(padded), segment, total);
    padded += segment_tiles * matmul_k_tile;
  }
}

}  // namespace troupe::kernels::cuda
