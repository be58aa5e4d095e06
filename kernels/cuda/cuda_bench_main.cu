// Benchmarks of the CUDA kernels, against the device's own copy.
//   kernels_cuda_bench [matmul] [attention] [layer] [ROWS]      (default: all)
// ROWS: products with so many rows only.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/bench_timer.cuh"

namespace troupe::kernels::cuda {
void bench_matmul(cudaStream_t stream, double copy_gbytes, std::int64_t only_rows);
void bench_attention(cudaStream_t stream, double copy_gbytes);
void bench_layer(cudaStream_t stream, double copy_gbytes);
}  // namespace troupe::kernels::cuda

int main(int count, char** arguments) {
  using namespace troupe::kernels::cuda;
  const auto wanted = [&](const char* name) {
    for (int i = 1; i < count; ++i) {
      if (std::strcmp(arguments[i], name) == 0) return true;
    }
    return count == 1;
  };
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "kernels_cuda_bench: no CUDA device\n");
    return 1;
  }
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  const double copy = copy_gbytes_per_s(stream);
  std::printf("%s: copy %.0f GB/s (read plus written)\n", properties.name, copy);
  const std::int64_t rows = count > 1 ? std::atoll(arguments[count - 1]) : 0;
  if (wanted("matmul")) bench_matmul(stream, copy, rows);
  if (wanted("attention")) bench_attention(stream, copy);
  if (wanted("layer")) bench_layer(stream, copy);
  const cudaError_t code = cudaDeviceSynchronize();
  if (code != cudaSuccess) {
    std::fprintf(stderr, "kernels_cuda_bench: %s\n", cudaGetErrorString(code));
  }
  return code == cudaSuccess ? 0 : 1;
}
