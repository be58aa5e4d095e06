#include "kernels/add/add_floats.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

// Neither range is aligned to more than a float: halving cuts anywhere.
__global__ void add_floats_kernel(float* values, const float* addend, std::int64_t count) {
  wait_for_previous();
  release_next();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    values[i] = __fadd_rn(values[i], addend[i]);
  }
}

}  // namespace

cudaError_t add_floats(cudaStream_t stream, float* values, const float* addend,
                       std::int64_t count) {
  const std::int64_t blocks = (count + threads - 1) / threads;
  return launch(stream, {.grid = grid_of(blocks), .block = dim3(threads)}, add_floats_kernel,
                values, addend, count);
}

}  // namespace troupe::kernels::cuda
