// See matmul_simt.cu.
#pragma once

#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {

[[nodiscard]] cudaError_t matmul_simt(cudaStream_t stream, const matmul_launch& what);

}  // namespace troupe::kernels::cuda
