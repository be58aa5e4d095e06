// What every tensor-core product shares: arguments, segments, the rows of a tile, float8.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/gated_activation/activation.cuh"
#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {

struct matmul_kernel_args {
  const bfloat16* input = nullptr;
  std::int64_t input_stride = 0;
  int rows = 0;
  matmul_weights weights;
  bool constant_weights = true;  // else the kernel before writes them
  const float* bias = nullptr;
  float* output = nullptr;
  std::int64_t output_stride = 0;
  gate fused = gate::none;
  void* gated = nullptr;
  bool gated_is_bfloat16 = true;
  std::int64_t gated_stride = 0;
  float4* stack = nullptr;  // pending sums of runs of the kernels for many rows
  // Of wgmma with few rows: how many runs of a tile are done (zero between launches), their sums.
  unsigned* done = nullptr;
  float4* partials = nullptr;
};

__device__ __forceinline__ int segment_inputs(const matmul_weights& weights) {
  return weights.scales == nullptr ? matmul_segment : matmul_float8_segment;
}

// What segments of one output are multiplied by, in ascending order of padded inputs.
struct segment_scales {
  const float* of = nullptr;  // null: 1

  __device__ __forceinline__ segment_scales(const matmul_weights& weights, std::int64_t output) {
    if (weights.scales == nullptr || output >= weights.outputs) return;
    of = weights.scales +
         output / matmul_scale_outputs * (weights.padded_inputs / matmul_float8_segment);
  }
  // Of the segment that starts at this column of the weights.
  __device__ __forceinline__ float at(int padded_input) const {
    return of == nullptr ? 1.0F : of[padded_input / matmul_float8_segment];
  }
};

// Float8 weights lie in groups of 64 inputs, four steps of 16, as the lanes of a quad need them:
// lane t's 16 bytes hold, of each step in turn, inputs 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
//
// Two e4m3 in the low (`upper` false) or high half of `four` as bfloat16, exactly. NaN becomes 480.
template <bool Upper>
__device__ __forceinline__ std::uint32_t float8_pair(std::uint32_t four) {
  // Each byte to the top of its half; exponent and mantissa go to where bfloat16 has them, then the
  // exponent's bias from 7 to 127 by a product with 2^120, which is exact (subnormals too).
  const std::uint32_t spread = __byte_perm(four, 0, Upper ? 0x3424 : 0x1404);
  const std::uint32_t biased = (spread & 0x80008000U) | ((spread & 0x7F007F00U) >> 4);
  std::uint32_t value = 0;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;"
      : "=r"(value)
      : "r"(biased), "r"(0x7B807B80U), "r"(0x80008000U));  // minus zero keeps a zero's sign
  return value;
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

__device__ __forceinline__ void store_activated(const matmul_kernel_args& args, std::int64_t row,
                                                std::int64_t output, float value) {
  const std::int64_t at = row * args.gated_stride + output;
  if (args.gated_is_bfloat16) {
    static_cast<bfloat16*>(args.gated)[at] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(args.gated)[at] = value;
  }
}
__device__ __forceinline__ void store_gated(const matmul_kernel_args& args, std::int64_t row,
                                            std::int64_t output, float gate_value, float up_value) {
  store_activated(args, row, output, gated_value(args.fused, gate_value, up_value));
}

// Few rows of the batch, each weight read once, straight into registers.
inline constexpr int matmul_few_rows_max = 64;
[[nodiscard]] bool matmul_takes_few_rows(const matmul_weights& weights, std::int64_t rows);
[[nodiscard]] cudaError_t matmul_few_rows(cudaStream_t stream, const matmul_kernel_args& args);
// Many rows by mma.sync: tiles of 128 outputs by 128 rows through shared memory. bfloat16 weights.
[[nodiscard]] cudaError_t matmul_tiled(cudaStream_t stream, const matmul_kernel_args& args);
// Units: bytes of matmul_kernel_args::stack.
[[nodiscard]] std::size_t matmul_tiled_stack_bytes();

// Writes the float8 weights of `count` outputs from `first` on as bfloat16, unscaled.
// Shape: to [count][padded_inputs]
[[nodiscard]] cudaError_t widen_float8(cudaStream_t stream, const matmul_weights& weights,
                                       std::int64_t first, std::int64_t count, bfloat16* to);

}  // namespace troupe::kernels::cuda
