// What every bfloat16 product is made of.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/gated_activation/activation.cuh"
#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {

// 32 inputs: two steps. A lane's 16 bytes of output l/4 (`low`), of output l/4 + 8 (`high`) and of
// batch row l/4, each from input 8 (l % 4) on.
__device__ __forceinline__ void mma_chunk(float (&d)[4], const uint4& low, const uint4& high,
                                          const uint4& row) {
  mma_step(d, low.x, high.x, low.y, high.y, row.x, row.y);
  mma_step(d, low.z, high.z, low.w, high.w, row.z, row.w);
}

// The row of the weights behind row `i` of a kernel's tile that starts at output `first`. With a
// gate every 16 rows are 8 gates and their 8 ups, so that one lane holds both of an output.
struct tile_rows {
  std::int64_t outputs = 0;  // rows of the weights
  bool gated = false;

  __device__ __forceinline__ std::int64_t weight_row(std::int64_t first, int i) const {
    if (!gated) return first + i;
    const std::int64_t output = first / 2 + i / 16 * 8 + i % 8;
    const std::int64_t half = outputs / 2;
    if (output >= half) return outputs;  // behind the last
    return i % 16 < 8 ? output : half + output;
  }
};

struct matmul_kernel_args {
  const bfloat16* input = nullptr;
  std::int64_t input_stride = 0;
  int rows = 0;
  matmul_weights weights;
  const float* bias = nullptr;
  float* output = nullptr;
  std::int64_t output_stride = 0;
  gate fused = gate::none;
  void* gated = nullptr;
  bool gated_is_bfloat16 = true;
  std::int64_t gated_stride = 0;
  float4* stack = nullptr;  // the tiled kernel's pending sums of runs
};

__device__ __forceinline__ void store_gated(const matmul_kernel_args& args, std::int64_t row,
                                            std::int64_t output, float gate_value, float up_value) {
  const float value = gated_value(args.fused, gate_value, up_value);
  const std::int64_t at = row * args.gated_stride + output;
  if (args.gated_is_bfloat16) {
    static_cast<bfloat16*>(args.gated)[at] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(args.gated)[at] = value;
  }
}

// Few rows of the batch, each weight read once, straight into registers.
inline constexpr int matmul_few_rows_max = 64;
[[nodiscard]] bool matmul_takes_few_rows(const matmul_weights& weights, std::int64_t rows);
[[nodiscard]] cudaError_t matmul_few_rows(cudaStream_t stream, const matmul_kernel_args& args);
// Many rows: tiles of 128 outputs by 128 rows through shared memory.
[[nodiscard]] cudaError_t matmul_tiled(cudaStream_t stream, const matmul_kernel_args& args);
// Units: bytes of matmul_kernel_args::stack.
[[nodiscard]] std::size_t matmul_tiled_stack_bytes();

}  // namespace troupe::kernels::cuda
