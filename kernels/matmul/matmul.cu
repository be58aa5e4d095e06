#include "kernels/matmul/matmul.cuh"

#include "kernels/matmul/matmul_mma.cuh"
#include "kernels/matmul/matmul_simt.cuh"

namespace troupe::kernels::cuda {
namespace {

// Whether every 16 bytes that a lane takes are aligned and within one row. Must not depend on the
// number of rows: the two arithmetics differ.
bool for_tensor_cores(const matmul_launch& what) {
  const matmul_weights& weights = *what.weights;
  constexpr std::int64_t elements = 8;
  if (!weights.is_bfloat16 || weights.inputs % elements != 0) return false;
  if (what.input_stride % elements != 0 || reinterpret_cast<std::uintptr_t>(what.input) % 16 != 0) {
    return false;
  }
  for (int run = 0; run < weights.runs; ++run) {
    if (weights.run_begin[run] % elements != 0) return false;
  }
  return true;
}

}  // namespace

std::size_t matmul_workspace_bytes() { return matmul_tiled_stack_bytes(); }

bool matmul_can_fuse_gate(const matmul_launch& what) {
  return for_tensor_cores(what) && what.bias == nullptr && what.weights->runs == 1 &&
         what.weights->outputs % 2 == 0;
}

cudaError_t matmul(cudaStream_t stream, const matmul_launch& what) {
  if (what.rows == 0 || what.weights->outputs == 0) return cudaSuccess;
  if (!for_tensor_cores(what)) return matmul_simt(stream, what);
  const matmul_kernel_args args{.input = static_cast<const bfloat16*>(what.input),
                                .input_stride = what.input_stride,
                                .rows = static_cast<int>(what.rows),
                                .weights = *what.weights,
                                .bias = what.bias,
                                .output = what.output,
                                .output_stride = what.output_stride,
                                .fused = what.fused,
                                .gated = what.gated,
                                .gated_is_bfloat16 = what.gated_is_bfloat16,
                                .gated_stride = what.gated_stride,
                                .stack = static_cast<float4*>(what.workspace.data)};
  if (matmul_takes_few_rows(*what.weights, what.rows)) return matmul_few_rows(stream, args);
  return matmul_tiled(stream, args);
}

}  // namespace troupe::kernels::cuda
