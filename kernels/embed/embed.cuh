// Rows of a table as float32, by device ids. Exact.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

struct embed_launch {
  const void* table = nullptr;  // [vocabulary][columns], rows `table_stride` elements apart
  bool table_is_bfloat16 = true;
  std::int64_t table_stride = 0;
  const std::int32_t* ids = nullptr;  // [rows]
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  float* output = nullptr;
  std::int64_t output_stride = 0;
};
[[nodiscard]] cudaError_t embed(cudaStream_t stream, const embed_launch& what);

}  // namespace troupe::kernels::cuda
