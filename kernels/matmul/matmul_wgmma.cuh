// Products on Hopper's warpgroup tensor cores (sm_90a): 64 outputs are the M of wgmma, rows of the
// batch its N, both operands fetched by the copy engine into swizzled shared memory. The bits of
// the other kernels (matmul.cuh).
#pragma once

#include "kernels/cuda/tensor_map.cuh"
#include "kernels/matmul/matmul_mma.cuh"

namespace troupe::kernels::cuda {

// Few rows: every weight read once.
inline constexpr int wgmma_few_rows_max = 128;  // at a time; more read the weights again
inline constexpr std::int64_t wgmma_outputs_max = 1 << 20;  // of the kernel for few rows
// Of matmul_kernel_args::done: one for 32 outputs or more.
inline constexpr std::size_t wgmma_counter_bytes = wgmma_outputs_max / 32 * sizeof(unsigned);

// Whether a fused gate can be asked for, given that the operands fit tensor cores.
[[nodiscard]] bool wgmma_can_fuse_gate(const matmul_weights& weights);
// Units: bytes of matmul_kernel_args::partials.
[[nodiscard]] std::size_t wgmma_partial_bytes(const matmul_weights& weights, std::int64_t rows);

// Units: bytes of matmul_kernel_args::stack for the kernel for many rows.
[[nodiscard]] std::size_t wgmma_stack_bytes(const matmul_weights& weights);

// Errors: the launch's.
[[nodiscard]] cudaError_t wgmma_few_rows(cudaStream_t stream, const matmul_kernel_args& args);
// Any rows: tiles of 128 outputs by 128 rows.
[[nodiscard]] cudaError_t wgmma_many_rows(cudaStream_t stream, const matmul_kernel_args& args);

}  // namespace troupe::kernels::cuda
