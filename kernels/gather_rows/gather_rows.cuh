// Rows of a matrix by device indices. Exact.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

struct gather_rows_launch {
  const float* input = nullptr;
  std::int64_t input_stride = 0;
  const std::int32_t* indices = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  float* output = nullptr;
  std::int64_t output_stride = 0;
};
[[nodiscard]] cudaError_t gather_rows(cudaStream_t stream, const gather_rows_launch& what);

}  // namespace troupe::kernels::cuda
