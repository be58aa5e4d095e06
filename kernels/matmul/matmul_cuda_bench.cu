// Products of real layers on CUDA, by every kernel that takes them: share of the copy bandwidth
// with few rows, rate with many, and whether the bits are those of the kernel before.
#include <cstdio>
#include <vector>

#include "kernels/cuda/bench_fill.cuh"
#include "kernels/cuda/bench_memory.cuh"
#include "kernels/cuda/bench_timer.cuh"
#include "kernels/matmul/matmul_mma.cuh"
#include "kernels/matmul/matmul_wgmma.cuh"

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
    {"8B o, 1 run", 4096, 4096, 1, false},  {"8B down, 1", 12288, 4096, 1, false},
    {"8B lm_head", 4096, 151936, 1, false}, {"32B qkv", 5120, 10240, 1, false},
    {"32B gate_up", 5120, 51200, 1, true},
};
// Weights that the caches cannot hold: copies of a matrix in turn.
constexpr std::int64_t weight_bytes_min = std::int64_t{512} << 20;

struct named_kernel {
  const char* name;
  matmul_kernel is;
  std::int64_t rows_min;
  std::int64_t rows_max;
};
constexpr named_kernel kernels[] = {
    {"few", matmul_kernel::few_rows, 1, matmul_few_rows_max},
    {"wgmma_few", matmul_kernel::wgmma_few_rows, 1, 512},
    {"wgmma_many", matmul_kernel::wgmma_many_rows, 128, 1 << 20},
    {"tiled", matmul_kernel::tiled, 512, 512},
};

struct measured {
  double us = 0.0;
  std::vector<std::byte> bits;  // of the first rows
};

__global__ void fill_codes_kernel(std::uint8_t* to, std::int64_t count) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::uint32_t mixed = static_cast<std::uint32_t>(i) * 2654435761U >> 24;
    to[i] = static_cast<std::uint8_t>((mixed & 0x7F) == 0x7F ? 0 : mixed);
  }
}

// One shape and number of rows, by one kernel after another.
class product_case {
 public:
  product_case(const layer_shape& shape, weight_type type, std::int64_t rows)
      : shape_(shape),
        rows_(rows),
        input_(filled(rows * shape.inputs, weight_type::bfloat16)),
        gated_(memory_.take<bfloat16>(static_cast<std::size_t>(rows * shape.outputs / 2), 0)),
        output_(memory_.take<float>(static_cast<std::size_t>(rows * shape.outputs), 0)) {
    of_.type = type;
    of_.outputs = shape.outputs;
    of_.inputs = of_.padded_inputs = shape.inputs;
    of_.runs = shape.runs;
    if (type == weight_type::float8_e4m3) {
      of_.scales =
          memory_.take<float>(static_cast<std::size_t>(shape.outputs / matmul_scale_outputs *
                                                       (shape.inputs / matmul_float8_segment)),
                              0x3C);
    }
    for (int run = 0; run <= shape.runs; ++run) {
      of_.run_begin[run] = of_.padded_run_begin[run] = shape.inputs / shape.runs * run;
    }
    const std::int64_t copies =
        rows <= wgmma_few_rows_max ? max(weight_bytes_min / bytes() + 1, std::int64_t{2}) : 1;
    for (std::int64_t i = 0; i < copies; ++i) {
      weights_.push_back(filled(shape.inputs * shape.outputs, type));
    }
    cudaDeviceSynchronize();
  }

  [[nodiscard]] const matmul_weights& weights() const { return of_; }
  [[nodiscard]] std::int64_t bytes() const {
    const int element = of_.type == weight_type::float8_e4m3 ? 1 : 2;
    return shape_.inputs * shape_.outputs * element;
  }
  [[nodiscard]] measured by(cudaStream_t stream, matmul_kernel kernel) {
    matmul_launch what{.input = input_,
                       .input_stride = shape_.inputs,
                       .rows = rows_,
                       .weights = &of_,
                       .output = output_,
                       .output_stride = shape_.outputs,
                       .workspace = {}};
    const bool widened = of_.type == weight_type::float8_e4m3 && kernel == matmul_kernel::tiled;
    const bool gated = shape_.gated && !widened;
    if (gated) {
      what.fused = gate::silu;
      what.gated = gated_;
      what.gated_stride = shape_.outputs / 2;
    }
    const std::size_t work_bytes = matmul_workspace_bytes(what, kernel);
    bench_memory work;
    what.workspace = {work.take<std::byte>(work_bytes, 0), work_bytes};
    measured made;
    const int each = rows_ <= wgmma_few_rows_max ? static_cast<int>(weights_.size()) : 3;
    made.us = median_us(stream, 7, each, [&](int call) {
      of_.data = weights_[static_cast<std::size_t>(call) % weights_.size()];
      const cudaError_t code = matmul_by(stream, what, kernel);
      if (code != cudaSuccess) std::printf("launch failed: %s\n", cudaGetErrorString(code));
    });
    made.bits.resize(static_cast<std::size_t>(min(rows_, std::int64_t{300}) *
                                              (gated ? shape_.outputs : shape_.outputs * 4)));
    cudaMemcpy(made.bits.data(), gated ? static_cast<void*>(gated_) : output_, made.bits.size(),
               cudaMemcpyDeviceToHost);
    return made;
  }

 private:
  void* filled(std::int64_t elements, weight_type type) {
    const auto count = static_cast<std::size_t>(elements);
    if (type == weight_type::bfloat16) return take_random<bfloat16>(memory_, count);
    auto* const made = memory_.take<std::uint8_t>(count, 0);
    fill_codes_kernel<<<1024, 256>>>(made, elements);
    return made;
  }

  const layer_shape& shape_;
  std::int64_t rows_;
  matmul_weights of_;
  bench_memory memory_;
  void* input_;
  bfloat16* gated_;
  float* output_;
  std::vector<void*> weights_;
};

void compare(cudaStream_t stream, double copy_gbytes, weight_type type, std::int64_t rows) {
  const char* const type_name = type == weight_type::bfloat16 ? "bfloat16" : "float8";
  for (const layer_shape& shape : shapes) {
    if (rows >= 512 && shape.outputs > 100'000) continue;  // nobody asks for all logits
    product_case product(shape, type, rows);
    std::vector<std::byte> bits;
    for (const named_kernel& kernel : kernels) {
      if (rows < kernel.rows_min || rows > kernel.rows_max) continue;
      if (kernel.is == matmul_kernel::few_rows && !matmul_takes_few_rows(product.weights(), rows)) {
        continue;
      }
      const measured got = product.by(stream, kernel.is);
      const bool same = bits.size() != got.bits.size() || bits == got.bits;
      bits = got.bits;
      const double gbytes = static_cast<double>(product.bytes()) / got.us * 1e-3;
      const double tflops =
          2.0 * static_cast<double>(rows * shape.inputs * shape.outputs) / got.us * 1e-6;
      std::printf("%-12s %-9s %6lld %-11s %10.1f %8.0f %7.0f%% %10.1f%s\n", shape.name, type_name,
                  static_cast<long long>(rows), kernel.name, got.us, gbytes,
                  100 * gbytes / copy_gbytes, tflops, same ? "" : "  OTHER BITS");
    }
  }
}

}  // namespace

void bench_matmul(cudaStream_t stream, double copy_gbytes, std::int64_t only_rows) {
  std::printf("%-12s %-9s %6s %-11s %10s %8s %8s %10s\n", "product", "weights", "rows", "kernel",
              "us", "GB/s", "of copy", "TFLOP/s");
  for (const std::int64_t rows : {1, 8, 32, 64, 128, 512, 8192}) {
    if (only_rows > 0 && rows != only_rows) continue;
    compare(stream, copy_gbytes, weight_type::bfloat16, rows);
  }
  for (const std::int64_t rows : {1, 8, 16, 64, 128, 384, 512, 8192}) {
    if (only_rows > 0 && rows != only_rows) continue;
    compare(stream, copy_gbytes, weight_type::float8_e4m3, rows);
  }
}

}  // namespace troupe::kernels::cuda
