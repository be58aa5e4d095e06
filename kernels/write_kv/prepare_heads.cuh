// What attention needs of a projection, in one kernel: query heads normed and rotated in place,
// keys normed, rotated and written to the cache, values written. The same bits as rms_norm, rotary
// and write_kv one after the other; the projection's keys are left as they were.
#pragma once

#include "kernels/write_kv/write_kv.cuh"

namespace troupe::kernels::cuda {

inline constexpr int prepared_head_dim_max = 256;

struct prepare_heads_launch {
  float* query = nullptr;  // [tokens][query_heads][head_dim]
  std::int64_t query_stride = 0;
  int query_heads = 0;
  const float* query_weight = nullptr;  // null: no norm
  const float* key_weight = nullptr;
  float query_epsilon = 0.0F;
  float key_epsilon = 0.0F;
  const float* cos = nullptr;  // [tokens][head_dim / 2]
  const float* sin = nullptr;
  write_kv_launch write;
};
[[nodiscard]] cudaError_t prepare_heads(cudaStream_t stream, const prepare_heads_launch& what);

}  // namespace troupe::kernels::cuda
