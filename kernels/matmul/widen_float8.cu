// Float8 weights as bfloat16 for the kernel with many rows by mma.sync, which only takes those: a
// product of thousands of rows reads them once more, for a few percent of its time.
#include "kernels/matmul/matmul_mma.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

// What one lane of a quad has of 64 inputs, a thread at a time; see float8_place().
__global__ void __launch_bounds__(threads)
    widen_kernel(const uint4* from, std::int64_t count, std::uint32_t* to) {
  wait_for_previous();  // the kernel before may still read what this one writes
  release_next();
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * threads) {
    const uint4 sixteen = from[i];
    std::uint32_t* const pairs = to + i / 4 * 32 + i % 4;
    const std::uint32_t steps[4] = {sixteen.x, sixteen.y, sixteen.z, sixteen.w};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      pairs[step * 8] = float8_pair<false>(steps[step]);
      pairs[step * 8 + 4] = float8_pair<true>(steps[step]);
    }
  }
}

}  // namespace

cudaError_t widen_float8(cudaStream_t stream, const matmul_weights& weights, std::int64_t first,
                         std::int64_t count, bfloat16* to) {
  const auto* const from =
      static_cast<const std::uint8_t*>(weights.data) + first * weights.padded_inputs;
  const std::int64_t units = count * weights.padded_inputs / 16;
  const auto grid = static_cast<unsigned>(
      min((units + threads - 1) / threads, std::int64_t{16} * multiprocessors()));
  return launch(stream, {.grid = dim3(grid), .block = dim3(threads)}, widen_kernel,
                reinterpret_cast<const uint4*>(from), units, reinterpret_cast<std::uint32_t*>(to));
}

}  // namespace troupe::kernels::cuda
