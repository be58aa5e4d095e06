// Numbers for a benchmark that look like activations: spread evenly between -0.5 and 0.5.
#pragma once

#include "kernels/cuda/bench_memory.cuh"
#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

template <class T>
__global__ void fill_random_kernel(T* to, std::size_t count) {
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += std::size_t{gridDim.x} * blockDim.x) {
    const auto mixed = static_cast<std::uint32_t>(i) * 2654435761U;
    to[i] = from_float<T>(static_cast<float>(mixed >> 8) * 0x1p-24F - 0.5F);
  }
}

template <class T>
[[nodiscard]] T* take_random(bench_memory& memory, std::size_t count) {
  T* const made = memory.take<T>(count, 0);
  fill_random_kernel<<<1024, 256>>>(made, count);
  return made;
}

}  // namespace troupe::kernels::cuda
