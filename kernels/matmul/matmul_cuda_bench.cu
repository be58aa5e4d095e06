// Products of real layers on CUDA: share of the copy bandwidth with few rows, rate with many.
#include <cstdio>
#include <vector>

#include "kernels/cuda/bench_timer.cuh"
#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {
namespace {

struct layer_shape {
  const char* name;
  std::int64_t inputs;
  std::int64_t outputs;
  int runs;
  bool gated;
};
constexpr layer_shape shapes[] = {
    {"0.6B qkv", 1024, 4096, 1, false},     {"0.6B o", 2048, 1024, 8, false},
    {"0.6B gate_up", 1024, 6144, 1, true},  {"0.6B down", 3072, 1024, 8, false},
    {"8B qkv", 4096, 6144, 1, false},       {"8B o", 4096, 4096, 8, false},
    {"8B gate_up", 4096, 24576, 1, true},   {"8B down", 12288, 4096, 8, false},
    {"8B lm_head", 4096, 151936, 1, false},
};
// Weights that the caches cannot hold: copies of a matrix in turn.
constexpr std::int64_t weight_bytes_min = std::int64_t{512} << 20;

struct product_memory {
  std::vector<void*> weights;
  void* input = nullptr;
  void* output = nullptr;
  void* gated = nullptr;
  void* work = nullptr;
};

__global__ void fill_kernel(bfloat16* to, std::int64_t count) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const auto mixed = static_cast<std::uint32_t>(i) * 2654435761U;
    to[i] = __float2bfloat16_rn(static_cast<float>(mixed >> 8) * 0x1p-24F - 0.5F);
  }
}

void* filled(std::int64_t elements) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, static_cast<std::size_t>(elements) * 2) != cudaSuccess) return nullptr;
  fill_kernel<<<1024, 256>>>(static_cast<bfloat16*>(memory), elements);
  return memory;
}

double product_us(cudaStream_t stream, const layer_shape& shape, std::int64_t rows) {
  product_memory memory;
  const std::int64_t bytes = shape.inputs * shape.outputs * 2;
  const std::int64_t copies = rows <= 64 ? max(weight_bytes_min / bytes + 1, std::int64_t{2}) : 1;
  for (std::int64_t i = 0; i < copies; ++i) {
    memory.weights.push_back(filled(shape.inputs * shape.outputs));
  }
  memory.input = filled(rows * shape.inputs);
  memory.gated = filled(rows * shape.outputs);
  const std::size_t work_bytes = matmul_workspace_bytes();
  cudaMalloc(&memory.output, static_cast<std::size_t>(rows * shape.outputs) * 4);
  cudaMalloc(&memory.work, work_bytes);
  cudaDeviceSynchronize();
  matmul_weights weights{.outputs = shape.outputs,
                         .inputs = shape.inputs,
                         .padded_inputs = shape.inputs,
                         .runs = shape.runs};
  for (int run = 0; run <= shape.runs; ++run) {
    weights.run_begin[run] = weights.padded_run_begin[run] = shape.inputs / shape.runs * run;
  }
  const double us = median_us(stream, 9, static_cast<int>(rows <= 64 ? copies : 3), [&](int call) {
    weights.data = memory.weights[static_cast<std::size_t>(call) % memory.weights.size()];
    matmul_launch what{.input = memory.input,
                       .input_stride = shape.inputs,
                       .rows = rows,
                       .weights = &weights,
                       .output = static_cast<float*>(memory.output),
                       .output_stride = shape.outputs,
                       .workspace = {memory.work, work_bytes}};
    if (shape.gated) {
      what.fused = gate::silu;
      what.gated = memory.gated;
      what.gated_stride = shape.outputs / 2;
    }
    const cudaError_t code = matmul(stream, what);
    if (code != cudaSuccess) std::printf("launch failed: %s\n", cudaGetErrorString(code));
  });
  for (void* of : memory.weights) cudaFree(of);
  for (void* of : {memory.input, memory.output, memory.gated, memory.work}) cudaFree(of);
  return us;
}

}  // namespace

void bench_matmul(cudaStream_t stream, double copy_gbytes) {
  std::printf("%-14s %6s %10s %10s %8s %10s\n", "product", "rows", "us", "GB/s", "of copy",
              "TFLOP/s");
  for (const std::int64_t rows : {1, 8, 16, 64, 512, 8192}) {
    for (const layer_shape& shape : shapes) {
      if (rows == 8192 && shape.outputs > 100'000) continue;  // nobody asks for all logits
      const double us = product_us(stream, shape, rows);
      const double gbytes = static_cast<double>(shape.inputs * shape.outputs) * 2 / us * 1e-3;
      const double tflops =
          2.0 * static_cast<double>(rows * shape.inputs * shape.outputs) / us * 1e-6;
      std::printf("%-14s %6lld %10.1f %10.0f %7.0f%% %10.1f\n", shape.name,
                  static_cast<long long>(rows), us, gbytes, 100 * gbytes / copy_gbytes, tflops);
    }
  }
}

}  // namespace troupe::kernels::cuda
