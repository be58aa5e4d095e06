#include "kernels/gated_activation/gated_activation.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

template <class Element>
__global__ void gated_activation_kernel(const __grid_constant__ gated_activation_launch what) {
  wait_for_previous();
  release_next();
  for (std::int64_t row = blockIdx.x; row < what.rows; row += gridDim.x) {
    const float* const gates = what.gates + row * what.gates_stride;
    const float* const ups = what.ups + row * what.ups_stride;
    auto* const to = static_cast<Element*>(what.output) + row * what.output_stride;
    for (std::int64_t i = threadIdx.x; i < what.columns; i += blockDim.x) {
      to[i] = from_float<Element>(gated_value(what.kind, gates[i], ups[i]));
    }
  }
}

}  // namespace

cudaError_t gated_activation(cudaStream_t stream, const gated_activation_launch& what) {
  const launch_shape shape{.grid = grid_of(what.rows), .block = dim3(threads)};
  if (what.output_is_bfloat16) {
    return launch(stream, shape, gated_activation_kernel<bfloat16>, what);
  }
  return launch(stream, shape, gated_activation_kernel<float>, what);
}

}  // namespace troupe::kernels::cuda
