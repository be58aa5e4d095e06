#include "kernels/add/add.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

__global__ void add_kernel(const __grid_constant__ add_launch what) {
  wait_for_previous();
  release_next();
  for (std::int64_t row = blockIdx.x; row < what.rows; row += gridDim.x) {
    float* const target = what.target + row * what.target_stride;
    const float* const addend = what.addend + row * what.addend_stride;
    for (std::int64_t i = threadIdx.x; i < what.columns; i += blockDim.x) {
      target[i] = added(target[i], addend[i], what.bias, i);
    }
  }
}

}  // namespace

cudaError_t add(cudaStream_t stream, const add_launch& what) {
  return launch(stream, {.grid = grid_of(what.rows), .block = dim3(threads)}, add_kernel, what);
}

}  // namespace troupe::kernels::cuda
