#include "kernels/rotary/rotary.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

__global__ void rotary_kernel(const __grid_constant__ rotary_launch what) {
  wait_for_previous();
  release_next();
  const int half = what.head_dim / 2;
  for (std::int64_t token = blockIdx.x; token < what.tokens; token += gridDim.x) {
    for (int i = static_cast<int>(threadIdx.x); i < what.count * half;
         i += static_cast<int>(blockDim.x)) {
      float* const pair = what.heads + token * what.token_stride +
                          std::int64_t{i / half} * what.head_dim + i % half;
      const float cos = what.cos[token * half + i % half];
      const float sin = what.sin[token * half + i % half];
      const float a = pair[0];
      const float b = pair[half];
      pair[0] = rotated_first(a, b, cos, sin);
      pair[half] = rotated_second(a, b, cos, sin);
    }
  }
}

}  // namespace

cudaError_t rotary(cudaStream_t stream, const rotary_launch& what) {
  return launch(stream, {.grid = grid_of(what.tokens), .block = dim3(threads)}, rotary_kernel,
                what);
}

}  // namespace troupe::kernels::cuda
