#include "kernels/write_kv/write_kv.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int threads = 256;

__global__ void write_kv_kernel(const __grid_constant__ write_kv_launch what) {
  wait_for_previous();
  release_next();
  const cache_place& cache = what.cache;
  const int elements = cache.heads * cache.head_dim;
  for (std::int64_t token = blockIdx.x; token < what.tokens; token += gridDim.x) {
    const std::int64_t slot = what.slots[token];
    for (int i = static_cast<int>(threadIdx.x); i < elements; i += static_cast<int>(blockDim.x)) {
      const std::int64_t to = cache.at(i / cache.head_dim, slot, i % cache.head_dim);
      cache.store(cache.keys, to, what.keys[token * what.keys_stride + i]);
      cache.store(cache.values, to, what.values[token * what.values_stride + i]);
    }
  }
}

}  // namespace

cudaError_t write_kv(cudaStream_t stream, const write_kv_launch& what) {
  return launch(stream, {.grid = grid_of(what.tokens), .block = dim3(threads)}, write_kv_kernel,
                what);
}

}  // namespace troupe::kernels::cuda
