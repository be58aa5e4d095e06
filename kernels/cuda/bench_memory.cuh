// Device memory of a benchmark, freed with it.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

namespace troupe::kernels::cuda {

class bench_memory {
 public:
  bench_memory() = default;
  bench_memory(const bench_memory&) = delete;
  bench_memory& operator=(const bench_memory&) = delete;
  ~bench_memory() {
    for (void* const memory : all_) cudaFree(memory);
  }

  // `count` elements, every byte of them `byte`.
  template <class T>
  [[nodiscard]] T* take(std::size_t count, int byte) {
    void* memory = nullptr;
    const std::size_t bytes = count * sizeof(T);
    if (cudaMalloc(&memory, bytes) != cudaSuccess) std::printf("no memory for %zu bytes\n", bytes);
    cudaMemset(memory, byte, bytes);
    all_.push_back(memory);
    return static_cast<T*>(memory);
  }
  template <class T>
  [[nodiscard]] T* copy(const std::vector<T>& host) {
    T* const device = take<T>(host.size(), 0);
    cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice);
    return device;
  }

 private:
  std::vector<void*> all_;
};

}  // namespace troupe::kernels::cuda
