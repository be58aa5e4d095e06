// Keys and values into the paged cache.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

// One layer's cache, as kernels::kv_view.
struct cache_place {
  void* keys = nullptr;
  void* values = nullptr;
  bool is_bfloat16 = true;
  std::int64_t blocks = 0;
  int heads = 0;
  int head_dim = 0;

  // Element of (head, slot, dim). A slot is block * 16 + place in the block.
  __device__ __forceinline__ std::int64_t at(int head, std::int64_t slot, int dim) const {
    return (std::int64_t{head} * blocks * cache_block_positions + slot) * head_dim + dim;
  }
  __device__ __forceinline__ void store(void* to, std::int64_t index, float value) const {
    if (is_bfloat16) {
      static_cast<bfloat16*>(to)[index] = __float2bfloat16_rn(value);
    } else {
      static_cast<float*>(to)[index] = value;
    }
  }
};

struct write_kv_launch {
  const float* keys = nullptr;  // [tokens][heads][head_dim]
  std::int64_t keys_stride = 0;
  const float* values = nullptr;
  std::int64_t values_stride = 0;
  std::int64_t tokens = 0;
  cache_place cache;
  const std::int64_t* slots = nullptr;  // [tokens]
};
[[nodiscard]] cudaError_t write_kv(cudaStream_t stream, const write_kv_launch& what);

}  // namespace troupe::kernels::cuda
