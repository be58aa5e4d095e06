// A warpgroup's sums of one run from float8 weights as they lie in memory, and from any weights.
#pragma once

#include "kernels/matmul/wgmma_runs.cuh"

namespace troupe::kernels::cuda {

// A thread's share of 64 outputs by a segment of float8 weights, as bfloat16: 8 steps.
struct float8_steps {
  std::uint32_t of[8][4];

  // Of the thread's first 16 bytes of its lower row, in the warpgroup's part of a stage.
  __device__ __forceinline__ static std::uint32_t place() {
    return (group_warp() * 16 + lane_id() / 4) * matmul_float8_segment + lane_id() % 4 * 16;
  }
  __device__ __forceinline__ void load(std::uint32_t from) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 low = load_shared(from + half * 64);
      const uint4 high = load_shared(from + half * 64 + 8 * matmul_float8_segment);
      const std::uint32_t lows[4] = {low.x, low.y, low.z, low.w};
      const std::uint32_t highs[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        of[half * 4 + i][0] = float8_pair<false>(lows[i]);
        of[half * 4 + i][1] = float8_pair<false>(highs[i]);
        of[half * 4 + i][2] = float8_pair<true>(lows[i]);
        of[half * 4 + i][3] = float8_pair<true>(highs[i]);
      }
    }
  }
  // d = the steps times the input in tiles of 64 inputs; not waited for.
  template <class Shape, int Count>
  __device__ __forceinline__ void multiply(std::uint32_t stage, float (&d)[Count]) const {
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint64_t b = descriptor(stage + Shape::weights_bytes + i / 4 * Shape::tile_bytes);
      wgmma_step(d, of[i], b + 2 * (i % 4), i > 0);
    }
    wgmma_commit();
  }
};

// The sum of a run's segments from float8 weights as they lie in memory, 64 outputs by a segment a
// stage. They become bfloat16 in registers, which wgmma reads until the wait: only then come the
// next. What else there is to do meanwhile, other warpgroups have.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_float8_run(ring<Shape>& from, int group,
                                                    const matmul_weights& weights, int run,
                                                    const row_scales& scales,
                                                    float (&total)[Count]) {
  clear(total);
  const std::uint32_t place = group * weights_group_bytes + float8_steps::place();
  const auto end = static_cast<int>(weights.padded_run_begin[run + 1]);
  float segment[Count];
  clear(segment);
  for (auto at = static_cast<int>(weights.padded_run_begin[run]); at < end;
       at += matmul_float8_segment) {
    const float low = scales.low.at(at);
    const float high = scales.high.at(at);
    from.wait_full();
    float8_steps steps;
    steps.load(from.address() + place);
    steps.template multiply<Shape>(from.address(), segment);
    wgmma_finish(segment);
    release_stage<Shape::cluster>(from.empty());
    from.advance();
    add_segment(low, high, segment, total);
  }
}

// The same by mma.sync, whose operands the compiler sees: for up to 16 rows, where wgmma's time is
// the latency of its chain.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_float8_few(ring<Shape>& from, int group,
                                                    const matmul_weights& weights, int run,
                                                    const row_scales& scales,
                                                    float (&total)[Count]) {
  clear(total);
  const std::uint32_t place = group * weights_group_bytes + float8_steps::place();
  const auto end = static_cast<int>(weights.padded_run_begin[run + 1]);
  const int token = lane_id() / 4;
  const std::uint32_t row = Shape::weights_bytes + token * k_tile_row_bytes + lane_id() % 4 * 4;
  for (auto at = static_cast<int>(weights.padded_run_begin[run]); at < end;
       at += matmul_float8_segment) {
    const float low = scales.low.at(at);
    const float high = scales.high.at(at);
    from.wait_full();
    float8_steps steps;
    steps.load(from.address() + place);
    float segment[Count / 4][4];
#pragma unroll
    for (int j = 0; j < Count / 4; ++j) {
      clear(segment[j]);
      // Rows j * 8 + token; the eighth of a row that has some inputs is swizzled by the row.
      const std::uint32_t rows = from.address() + row + j * 8 * k_tile_row_bytes;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t tile = rows + i / 4 * Shape::tile_bytes;
        const std::uint32_t first = load_shared_word(tile + ((i % 4 * 2) ^ token) * 16);
        const std::uint32_t second = load_shared_word(tile + ((i % 4 * 2 + 1) ^ token) * 16);
        mma_step(segment[j], steps.of[i], first, second);
      }
    }
    __syncwarp();  // all lanes have read the stage
    release_stage<Shape::cluster>(from.empty());
    from.advance();
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      total[i] = __fmaf_rn(i % 4 < 2 ? low : high, segment[i / 4][i % 4], total[i]);
    }
  }
}

// d = the sum of a run, whatever the weights are.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_one_run(ring<Shape>& from, int group,
                                                 const matmul_weights& weights, int run,
                                                 const row_scales& scales, float (&d)[Count]) {
  if constexpr (Shape::float8 && Shape::tokens <= 16) {
    multiply_float8_few(from, group, weights, run, scales, d);
  } else if constexpr (Shape::float8) {
    multiply_float8_run(from, group, weights, run, scales, d);
  } else {
    multiply_run(from, group, weights, run, scales, d);
  }
}

}  // namespace troupe::kernels::cuda
