#include "kernels/write_kv/prepare_heads.cuh"

#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rotary/rotary.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int warps = 4;

struct head_rule {
  const float* weight;
  float epsilon;
};

// The head's values, normed, in the warp's shared row.
__device__ __forceinline__ void load_head(const float* from, int head_dim, const head_rule& rule,
                                          float* row) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  float factor = 0.0F;
  if (rule.weight != nullptr) {
    factor = norm_factor(warp_sum_of_squares(from, head_dim), head_dim, rule.epsilon);
  }
  for (int i = lane; i < head_dim; i += warp_threads) {
    row[i] =
        rule.weight == nullptr ? from[i] : __fmul_rn(__fmul_rn(from[i], factor), rule.weight[i]);
  }
  __syncwarp();
}

// Calls store(dim, value) for the rotated elements of the row.
template <class Store>
__device__ __forceinline__ void rotate_head(const prepare_heads_launch& what, std::int64_t token,
                                            const float* row, const Store& store) {
  const int half = what.write.cache.head_dim / 2;
  for (int i = static_cast<int>(threadIdx.x) % warp_threads; i < half; i += warp_threads) {
    const float cos = what.cos[token * half + i];
    const float sin = what.sin[token * half + i];
    store(i, rotated_first(row[i], row[i + half], cos, sin));
    store(i + half, rotated_second(row[i], row[i + half], cos, sin));
  }
}

// A warp a token and head: queries, then keys, then values.
__global__ void __launch_bounds__(warps* warp_threads)
    prepare_heads_kernel(const __grid_constant__ prepare_heads_launch what) {
  __shared__ float rows[warps][prepared_head_dim_max];
  wait_for_previous();
  release_next();
  const write_kv_launch& write = what.write;
  const cache_place& cache = write.cache;
  const int each = what.query_heads + 2 * cache.heads;
  float* const row = rows[threadIdx.x / warp_threads];
  for (std::int64_t at = std::int64_t{blockIdx.x} * warps + threadIdx.x / warp_threads;
       at < write.tokens * each; at += std::int64_t{gridDim.x} * warps) {
    const std::int64_t token = at / each;
    const int head = static_cast<int>(at % each);
    const int kv_head = (head - what.query_heads) % max(1, cache.heads);
    const std::int64_t offset = std::int64_t{kv_head} * cache.head_dim;
    if (head < what.query_heads) {
      float* const query =
          what.query + token * what.query_stride + std::int64_t{head} * cache.head_dim;
      load_head(query, cache.head_dim, {what.query_weight, what.query_epsilon}, row);
      rotate_head(what, token, row, [&](int dim, float value) { query[dim] = value; });
    } else if (head < what.query_heads + cache.heads) {
      load_head(write.keys + token * write.keys_stride + offset, cache.head_dim,
                {what.key_weight, what.key_epsilon}, row);
      rotate_head(what, token, row, [&](int dim, float value) {
        cache.store(cache.keys, cache.at(kv_head, write.slots[token], dim), value);
      });
    } else {
      const float* const values = write.values + token * write.values_stride + offset;
      for (int i = static_cast<int>(threadIdx.x) % warp_threads; i < cache.head_dim;
           i += warp_threads) {
        cache.store(cache.values, cache.at(kv_head, write.slots[token], i), values[i]);
      }
    }
    __syncwarp();  // before the row is filled anew
  }
}

}  // namespace

cudaError_t prepare_heads(cudaStream_t stream, const prepare_heads_launch& what) {
  const std::int64_t all = what.write.tokens * (what.query_heads + 2 * what.write.cache.heads);
  return launch(stream,
                {.grid = grid_of((all + warps - 1) / warps), .block = dim3(warps * warp_threads)},
                prepare_heads_kernel, what);
}

}  // namespace troupe::kernels::cuda
