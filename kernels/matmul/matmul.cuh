// Matrix products on CUDA: launches only, over device pointers. cuda_ops (kernels/cuda) maps ops
// onto them.
//
// Arithmetic (part of the contract). Tensor cores: a run's inputs are cut into segments of 256
// (float8: 128); a segment is a chain of steps over 16 inputs each (mma m16n8k16, or wgmma k16: the
// same bits), in ascending order, from zero, over the weights as bfloat16; segments, times their
// scale (float8), are added in ascending order to zero; the runs' sums as
// ((0+1)+(2+3))+((4+5)+(6+7)) (1, 2, 4 or 8 runs); then the bias. float32 weights, or operands that
// do not start at multiples of 16 bytes: lane-strided fused multiply-adds and a tree over the warp.
// The same bits for every number of rows, whichever kernel is chosen for it.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

inline constexpr int matmul_runs_max = 8;
inline constexpr int matmul_k_tile = 64;  // inputs: a run is padded with zeros to a multiple of it
inline constexpr int matmul_segment = 256;         // inputs of one chain
inline constexpr int matmul_float8_segment = 128;  // inputs, and outputs, of one scale in a file
inline constexpr int matmul_scale_outputs = 16;    // outputs of one scale here

enum class weight_type : int { bfloat16, float32, float8_e4m3 };

// One weight matrix in device memory: [outputs][padded_inputs], row-major; each run starts at a
// multiple of matmul_k_tile (float8: of its segment), zeros behind its last input. Float8: every 64
// inputs in the order of float8_place() (kernels/float8.hpp).
struct matmul_weights {
  const void* data = nullptr;
  weight_type type = weight_type::bfloat16;
  const float* scales = nullptr;  // float8: [outputs / 16, rounded up][padded_inputs / 128]
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;
  std::int64_t padded_inputs = 0;
  int runs = 1;
  std::int64_t run_begin[matmul_runs_max + 1] = {};  // in the input's columns; [runs] is inputs
  std::int64_t padded_run_begin[matmul_runs_max + 1] = {};  // in the weights' columns
};

// ((0+1)+(2+3))+((4+5)+(6+7)) over the first `count` sums, which it uses up.
__device__ __forceinline__ float tree_of_runs(float (&runs)[matmul_runs_max], int count) {
#pragma unroll
  for (int width = 1; width < matmul_runs_max; width *= 2) {
    if (width >= count) break;
#pragma unroll
    for (int i = 0; i + width < matmul_runs_max; i += 2 * width) {
      if (i < count) runs[i] = __fadd_rn(runs[i], runs[i + width]);
    }
  }
  return runs[0];
}

// Scratch that one stream's products share, zeroed once.
struct matmul_workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};
enum class gate : int { none = -1, silu = 0, gelu_tanh = 1, gelu = 2 };

struct matmul_launch {
  // [rows][inputs], 16-byte aligned; float32 with weights of float32, else bfloat16.
  const void* input = nullptr;
  std::int64_t input_stride = 0;  // elements
  std::int64_t rows = 0;
  const matmul_weights* weights = nullptr;
  const float* bias = nullptr;  // [outputs] or null
  float* output = nullptr;      // float32 [rows][outputs]
  std::int64_t output_stride = 0;
  // Fused gated activation: the weights' first half of outputs are gates, the second half ups (one
  // run only). gated[row][i] = act(out[row][i]) * out[row][outputs/2 + i]; `output` is not written.
  gate fused = gate::none;  // without a bias
  void* gated = nullptr;    // bfloat16 or float32 [rows][outputs / 2]
  bool gated_is_bfloat16 = true;
  std::int64_t gated_stride = 0;
  matmul_workspace workspace;
};

// Units: bytes of workspace that matmul() needs for `what`, on this device.
[[nodiscard]] std::size_t matmul_workspace_bytes(const matmul_launch& what);
// Enqueues. Errors: the launch's.
[[nodiscard]] cudaError_t matmul(cudaStream_t stream, const matmul_launch& what);
// Whether `fused` can be asked for (else launch the product and gated_activation apart: same bits).
[[nodiscard]] bool matmul_can_fuse_gate(const matmul_launch& what);

// By one kernel, for benchmarks and the choice itself. All but simt have the same bits; simt takes
// any operands, wgmma needs sm_90a, few_rows has at most 64.
enum class matmul_kernel : std::uint8_t { simt, few_rows, tiled, wgmma_few_rows, wgmma_many_rows };
[[nodiscard]] std::size_t matmul_workspace_bytes(const matmul_launch& what, matmul_kernel choice);
[[nodiscard]] cudaError_t matmul_by(cudaStream_t stream, const matmul_launch& what,
                                    matmul_kernel choice);

}  // namespace troupe::kernels::cuda
