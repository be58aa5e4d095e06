#include "kernels/embed/embed.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

template <class Element>
__global__ void embed_kernel(const __grid_constant__ embed_launch what) {
  wait_for_previous();
  release_next();
  for (std::int64_t row = blockIdx.x; row < what.rows; row += gridDim.x) {
    const auto* const from =
        static_cast<const Element*>(what.table) + what.ids[row] * what.table_stride;
    for (std::int64_t i = threadIdx.x; i < what.columns; i += blockDim.x) {
      what.output[row * what.output_stride + i] = to_float(from[i]);
    }
  }
}

}  // namespace

cudaError_t embed(cudaStream_t stream, const embed_launch& what) {
  const launch_shape shape{.grid = grid_of(what.rows), .block = dim3(threads)};
  if (what.table_is_bfloat16) return launch(stream, shape, embed_kernel<bfloat16>, what);
  return launch(stream, shape, embed_kernel<float>, what);
}

}  // namespace troupe::kernels::cuda
