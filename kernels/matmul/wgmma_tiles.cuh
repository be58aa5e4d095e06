// How the wgmma kernels see their operands (tensor maps) and how a warpgroup's sums become output.
#pragma once

#include <cuda.h>

#include "kernels/cuda/wgmma.cuh"
#include "kernels/matmul/matmul_wgmma.cuh"

namespace troupe::kernels::cuda {

struct wgmma_maps {
  CUtensorMap weights;  // gated: [outputs / 16][gate, up][8 rows][inputs], else [outputs][inputs]
  CUtensorMap input;    // [rows][inputs]
};

// What one copy takes: rows of the weights, rows of the batch, each by 128 bytes.
struct wgmma_boxes {
  int weight_rows = 0;
  int input_rows = 0;
};
[[nodiscard]] cudaError_t make_wgmma_maps(const matmul_kernel_args& args, const wgmma_boxes& boxes,
                                          wgmma_maps* made);

__host__ __device__ __forceinline__ int k_tiles_of(const matmul_weights& weights, int run) {
  return static_cast<int>(weights.padded_run_begin[run + 1] - weights.padded_run_begin[run]) /
         matmul_k_tile;
}

// Every 16 rows of the tile are 8 gates and their 8 ups: a thread holds both of an output.
template <int Count>
__device__ __forceinline__ void store_gated_tile(const matmul_kernel_args& args,
                                                 const float (&d)[Count], int first_output,
                                                 int first_token) {
  const int output = first_output / 2 + group_warp() * 8 + lane_id() / 4;
  if (output >= args.weights.outputs / 2) return;
  const int token = first_token + lane_id() % 4 * 2;
  with_gate(args.fused, [&]<gate Kind>(std::integral_constant<gate, Kind>) {
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const int skipped = i / 2 * 8 + i % 2;
      const int at = i / 2 * 4 + i % 2;
      if (skipped >= args.rows - token) continue;
      store_activated(args, token + skipped, output, gated_value<Kind>(d[at], d[at + 2]));
    }
  });
}

// Eight lanes have eight outputs in a row: each store fills sectors of 32 bytes.
template <int Count>
__device__ __forceinline__ void store_plain_tile(const matmul_kernel_args& args,
                                                 const float (&d)[Count], int first_output,
                                                 int first_token) {
  const int low = first_output + group_warp() * 16 + lane_id() / 4;
  const bool biased = args.bias != nullptr;
  const bool has_low = low < args.weights.outputs;
  const bool has_high = low + 8 < args.weights.outputs;
  const float low_bias = biased && has_low ? args.bias[low] : 0.0F;
  const float high_bias = biased && has_high ? args.bias[low + 8] : 0.0F;
  const int token = first_token + lane_id() % 4 * 2;
  float* to = args.output + token * args.output_stride + low;
#pragma unroll
  for (int i = 0; i < Count / 2; ++i) {
    const float a = d[i / 2 * 4 + i % 2];
    const float b = d[i / 2 * 4 + i % 2 + 2];
    if (i / 2 * 8 + i % 2 < args.rows - token) {
      if (has_low) to[0] = biased ? __fadd_rn(a, low_bias) : a;
      if (has_high) to[8] = biased ? __fadd_rn(b, high_bias) : b;
    }
    to += args.output_stride * (i % 2 == 0 ? 1 : 7);
  }
}

// A warpgroup's 64 tile rows from `first_output` on, for the batch's rows from first_token.
template <bool Gated, int Count>
__device__ __forceinline__ void store_tile(const matmul_kernel_args& args, const float (&d)[Count],
                                           int first_output, int first_token) {
  if constexpr (Gated) {
    store_gated_tile(args, d, first_output, first_token);
  } else {
    store_plain_tile(args, d, first_output, first_token);
  }
}

template <int Count>
__device__ __forceinline__ void clear(float (&d)[Count]) {
#pragma unroll
  for (float& sum : d) sum = 0.0F;
}

}  // namespace troupe::kernels::cuda
