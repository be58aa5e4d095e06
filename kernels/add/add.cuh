// target += addend (+ bias), element by element in this order.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

struct add_launch {
  float* target = nullptr;
  std::int64_t target_stride = 0;
  const float* addend = nullptr;
  std::int64_t addend_stride = 0;
  const float* bias = nullptr;  // [columns] or null; added to the addend first
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};
[[nodiscard]] cudaError_t add(cudaStream_t stream, const add_launch& what);

__device__ __forceinline__ float added(float target, float addend, const float* bias,
                                       std::int64_t column) {
  return __fadd_rn(target, bias == nullptr ? addend : __fadd_rn(addend, bias[column]));
}

}  // namespace troupe::kernels::cuda
