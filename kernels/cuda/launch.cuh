// What every kernel of the CUDA backend shares: how it is launched, how it waits for the one before
// it, and small pieces of arithmetic with fixed bits.
//
// Kernels of one stream overlap at their edges (programmatic dependent launch): a kernel may start
// while the one before still runs. So EVERY kernel, in every thread that touches memory which
// another kernel writes or still reads, calls wait_for_previous() first; before it only what no
// kernel of the step writes may be read: constants, step data, the cache of earlier steps. That
// makes the chain transitive: when it returns, all earlier kernels are done and their writes are
// visible. release_next() early lets the next kernel's prologue overlap.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace troupe::kernels::cuda {

using bfloat16 = __nv_bfloat16;

inline constexpr int warp_threads = 32;
inline constexpr int cache_block_positions = 16;  // kernels::kv_block_tokens

__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void release_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct launch_shape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  dim3 cluster{1, 1, 1};
};

// Enqueues one kernel. `overlap` is false on devices before sm_90, which lack dependent launch.
// Shared memory above 48 KiB: the caller has raised the kernel's limit with allow_shared_memory().
template <class... Parameters, class... Arguments>
[[nodiscard]] cudaError_t launch(cudaStream_t stream, const launch_shape& shape,
                                 void (*kernel)(Parameters...), Arguments... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return cudaSuccess;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  if (shape.cluster.x * shape.cluster.y * shape.cluster.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster.x;
    attributes[count].val.clusterDim.y = shape.cluster.y;
    attributes[count++].val.clusterDim.z = shape.cluster.z;
  }
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Of the current device; of a process's first, which the others are taken to resemble.
[[nodiscard]] inline int multiprocessors() {
  static const int count = [] {
    int device = 0;
    int found = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device);
    return found;
  }();
  return count;
}

// One CTA for each of `rows`, which walk in turn where a grid cannot hold as many.
[[nodiscard]] inline dim3 grid_of(std::int64_t rows) {
  constexpr std::int64_t grid_max = 1 << 20;
  return dim3(static_cast<unsigned>(rows < grid_max ? rows : grid_max));
}

template <class... Parameters>
[[nodiscard]] cudaError_t allow_shared_memory(void (*kernel)(Parameters...), std::size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

// Sums over a warp in one fixed tree; every lane gets the result.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, offset));
  }
  return value;
}

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bfloat16 value) { return __bfloat162float(value); }
template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

}  // namespace troupe::kernels::cuda
