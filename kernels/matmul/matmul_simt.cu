// Products that the tensor-core kernels do not take: float32 weights, and operands that do not
// start at multiples of 16 bytes. A warp an output and row of the batch; one arithmetic for any
// number of rows.
#include "kernels/matmul/matmul_simt.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int warps = 8;

// A run: each lane a chain of fused multiply-adds over every 32nd input, then the tree of the warp.
template <class Element>
__device__ __forceinline__ float run_sum(const matmul_launch& what, const matmul_weights& weights,
                                         std::int64_t row, std::int64_t output, int run) {
  const auto* const input =
      static_cast<const Element*>(what.input) + row * what.input_stride + weights.run_begin[run];
  const auto* const data = static_cast<const Element*>(weights.data) +
                           output * weights.padded_inputs + weights.padded_run_begin[run];
  const std::int64_t length = weights.run_begin[run + 1] - weights.run_begin[run];
  float sum = 0.0F;
  for (std::int64_t i = threadIdx.x % warp_threads; i < length; i += warp_threads) {
    sum = __fmaf_rn(to_float(input[i]), to_float(data[i]), sum);
  }
  return warp_sum(sum);
}

template <class Element>
__global__ void __launch_bounds__(warps* warp_threads)
    simt_kernel(const __grid_constant__ matmul_launch what,
                const __grid_constant__ matmul_weights weights) {
  wait_for_previous();
  release_next();
  const std::int64_t output = std::int64_t{blockIdx.x} * warps + threadIdx.x / warp_threads;
  if (output >= weights.outputs) return;
  for (std::int64_t row = blockIdx.y; row < what.rows; row += gridDim.y) {
    float runs[matmul_runs_max];
#pragma unroll
    for (int run = 0; run < matmul_runs_max; ++run) {
      runs[run] = run < weights.runs ? run_sum<Element>(what, weights, row, output, run) : 0.0F;
    }
    const float sum = tree_of_runs(runs, weights.runs);
    if (threadIdx.x % warp_threads != 0) continue;
    what.output[row * what.output_stride + output] =
        what.bias == nullptr ? sum : __fadd_rn(sum, what.bias[output]);
  }
}

}  // namespace

cudaError_t matmul_simt(cudaStream_t stream, const matmul_launch& what) {
  const matmul_weights& weights = *what.weights;
  const auto tiles = static_cast<unsigned>((weights.outputs + warps - 1) / warps);
  constexpr std::int64_t grid_rows_max = 32'768;  // below the limit of a grid's second dimension
  const auto rows = static_cast<unsigned>(min(what.rows, grid_rows_max));
  const launch_shape shape{.grid = dim3(tiles, rows), .block = dim3(warps * warp_threads)};
  if (weights.type == weight_type::float8_e4m3) return cudaErrorNotSupported;
  if (weights.type == weight_type::bfloat16) {
    return launch(stream, shape, simt_kernel<bfloat16>, what, weights);
  }
  return launch(stream, shape, simt_kernel<float>, what, weights);
}

}  // namespace troupe::kernels::cuda
