// Timing for the CUDA benchmarks: median of repeated device-event timings, rotating over enough
// operand sets that the second-level cache holds none of them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

namespace troupe::kernels::cuda {

// Calls body(i) `each` times between two events, `samples` times; the median of one call.
// Units: microseconds.
template <class Body>
[[nodiscard]] double median_us(cudaStream_t stream, int samples, int each, Body&& body) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  int call = 0;
  for (int i = 0; i < each; ++i) body(call++);  // warm-up, not counted
  for (int sample = 0; sample < samples; ++sample) {
    cudaEventRecord(begin, stream);
    for (int i = 0; i < each; ++i) body(call++);
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float ms = 0.0F;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]) * 1e3 / each;
}

// Bytes read plus written by a device-to-device copy of 2 GiB, per second. Units: GB/s.
[[nodiscard]] inline double copy_gbytes_per_s(cudaStream_t stream) {
  constexpr std::size_t bytes = std::size_t{1} << 31;
  void* from = nullptr;
  void* to = nullptr;
  if (cudaMalloc(&from, bytes) != cudaSuccess || cudaMalloc(&to, bytes) != cudaSuccess) return 0.0;
  cudaMemsetAsync(from, 0x5A, bytes, stream);
  const double us = median_us(stream, 9, 2, [&](int) {
    cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  });
  cudaFree(from);
  cudaFree(to);
  return 2.0 * static_cast<double>(bytes) / us * 1e-3;
}

}  // namespace troupe::kernels::cuda
