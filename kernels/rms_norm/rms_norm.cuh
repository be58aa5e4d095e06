// Root-mean-square norms of rows, or of each head of a row; and the norm of a row that something is
// added to first.
//
// Arithmetic (part of the contract): up to 256 columns a warp, lane l taking columns l, l + 32,
// ...; above that a block of 256 threads (1024 from 8193 columns on), thread t taking columns t, t
// + threads, ... by one, or by groups of 4 where rows and addresses allow it; then trees. The order
// depends on the number of columns and the alignment alone.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

inline constexpr int warp_norm_columns_max = 256;

struct rms_norm_launch {
  const float* input = nullptr;   // [rows][heads][columns]
  std::int64_t input_stride = 0;  // from row to row
  std::int64_t rows = 0;
  int heads = 1;
  int columns = 0;
  const float* weight = nullptr;  // [columns]
  float epsilon = 0.0F;
  void* output = nullptr;
  bool output_is_bfloat16 = true;
  std::int64_t output_stride = 0;
};
[[nodiscard]] cudaError_t rms_norm(cudaStream_t stream, const rms_norm_launch& what);

// target += addend (+ bias), then the norm of target: the same bits as add and rms_norm.
// `norm.input` is the target; one head.
struct add_rms_norm_launch {
  float* target = nullptr;
  const float* addend = nullptr;
  std::int64_t addend_stride = 0;
  const float* bias = nullptr;
  rms_norm_launch norm;
};
[[nodiscard]] cudaError_t add_rms_norm(cudaStream_t stream, const add_rms_norm_launch& what);

// What the elements of a row with this sum of squares are multiplied by.
__device__ __forceinline__ float norm_factor(float sum_of_squares, int columns, float epsilon) {
  const float mean = __fdiv_rn(sum_of_squares, static_cast<float>(columns));
  return __fdiv_rn(1.0F, __fsqrt_rn(__fadd_rn(mean, epsilon)));
}

// A warp's sum of squares of a row up to warp_norm_columns_max.
__device__ __forceinline__ float warp_sum_of_squares(const float* row, int columns) {
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x) % warp_threads; i < columns; i += warp_threads) {
    sum = __fmaf_rn(row[i], row[i], sum);
  }
  return warp_sum(sum);
}

}  // namespace troupe::kernels::cuda
