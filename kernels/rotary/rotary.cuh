// Rotates halves of heads in place.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

struct rotary_launch {
  float* heads = nullptr;  // [tokens][count][head_dim]
  std::int64_t token_stride = 0;
  std::int64_t tokens = 0;
  int count = 0;
  int head_dim = 0;
  const float* cos = nullptr;  // [tokens][head_dim / 2]
  const float* sin = nullptr;
};
[[nodiscard]] cudaError_t rotary(cudaStream_t stream, const rotary_launch& what);

// The upper and the lower element of a pair.
__device__ __forceinline__ float rotated_first(float a, float b, float cos, float sin) {
  return __fsub_rn(__fmul_rn(a, cos), __fmul_rn(b, sin));
}
__device__ __forceinline__ float rotated_second(float a, float b, float cos, float sin) {
  return __fadd_rn(__fmul_rn(b, cos), __fmul_rn(a, sin));
}

}  // namespace troupe::kernels::cuda
