#include "kernels/write_kv/prepare_heads.cuh"

#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rotary/rotary.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int warps = 4;

constexpr int lane_dims = prepared_head_dim_max / warp_threads;

struct head_rule {
  const float* weight;
  float epsilon;
};

// A lane's share of a head: dimensions lane, lane + 32, ...
struct lane_head {
  float values[lane_dims];

  __device__ __forceinline__ static int dim(int i) {
    return static_cast<int>(threadIdx.x) % warp_threads + i * warp_threads;
  }
  __device__ __forceinline__ void load(const float* from, int head_dim) {
#pragma unroll
    for (int i = 0; i < lane_dims; ++i) values[i] = dim(i) < head_dim ? from[dim(i)] : 0.0F;
  }
};

// What a token's heads meet that no kernel of the step writes.
struct head_constants {
  lane_head weight;
  lane_head cos;
  lane_head sin;
  std::int64_t slot;
};

// The norm, in the warp's shared row: the bits of rms_norm.
__device__ __forceinline__ void norm_head(const lane_head& head, const head_constants& with,
                                          int head_dim, const head_rule& rule, float* row) {
  float factor = 0.0F;
  if (rule.weight != nullptr) {
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < lane_dims; ++i) {
      if (lane_head::dim(i) < head_dim) sum = __fmaf_rn(head.values[i], head.values[i], sum);
    }
    factor = norm_factor(warp_sum(sum), head_dim, rule.epsilon);
  }
#pragma unroll
  for (int i = 0; i < lane_dims; ++i) {
    if (lane_head::dim(i) >= head_dim) continue;
    row[lane_head::dim(i)] = rule.weight == nullptr ? head.values[i]
                                                    : __fmul_rn(__fmul_rn(head.values[i], factor),
                                                                with.weight.values[i]);
  }
  __syncwarp();
}

// Calls store(dim, value) for the rotated elements of the row.
template <class Store>
__device__ __forceinline__ void rotate_head(const head_constants& with, int head_dim,
                                            const float* row, const Store& store) {
  const int half = head_dim / 2;
#pragma unroll
  for (int i = 0; i < lane_dims / 2; ++i) {
    const int dim = lane_head::dim(i);
    if (dim >= half) continue;
    const float cos = with.cos.values[i];
    const float sin = with.sin.values[i];
    store(dim, rotated_first(row[dim], row[dim + half], cos, sin));
    store(dim + half, rotated_second(row[dim], row[dim + half], cos, sin));
  }
}

// A warp a token and head: queries, then keys, then values.
__global__ void __launch_bounds__(warps* warp_threads)
    prepare_heads_kernel(const __grid_constant__ prepare_heads_launch what) {
  __shared__ float rows[warps][prepared_head_dim_max];
  const write_kv_launch& write = what.write;
  const cache_place& cache = write.cache;
  const int half = cache.head_dim / 2;
  const int each = what.query_heads + 2 * cache.heads;
  float* const row = rows[threadIdx.x / warp_threads];
  bool waited = false;
  const auto all = static_cast<unsigned>(write.tokens) * static_cast<unsigned>(each);
  for (unsigned at = blockIdx.x * warps + threadIdx.x / warp_threads; at < all;
       at += gridDim.x * warps) {
    const std::int64_t token = at / static_cast<unsigned>(each);
    const auto number = static_cast<int>(at % static_cast<unsigned>(each));
    const bool is_query = number < what.query_heads;
    const bool is_value = number >= what.query_heads + cache.heads;
    const int kv_head = (number - what.query_heads) % max(1, cache.heads);
    const head_rule rule = is_query
                               ? head_rule{what.query_weight, what.query_epsilon}
                               : head_rule{is_value ? nullptr : what.key_weight, what.key_epsilon};
    head_constants with;
    if (rule.weight != nullptr) with.weight.load(rule.weight, cache.head_dim);
    if (!is_value) {
      with.cos.load(what.cos + token * half, half);
      with.sin.load(what.sin + token * half, half);
    }
    with.slot = is_query ? 0 : write.slots[token];
    if (!waited) {
      wait_for_previous();
      release_next();
      waited = true;
    }
    const std::int64_t offset = std::int64_t{is_query ? number : kv_head} * cache.head_dim;
    float* const query = what.query + token * what.query_stride + offset;
    lane_head head;
    head.load(is_query   ? query
              : is_value ? write.values + token * write.values_stride + offset
                         : write.keys + token * write.keys_stride + offset,
              cache.head_dim);
    if (is_value) {
#pragma unroll
      for (int i = 0; i < lane_dims; ++i) {
        const int dim = lane_head::dim(i);
        if (dim >= cache.head_dim) continue;
        cache.store(cache.values, cache.at(kv_head, with.slot, dim), head.values[i]);
      }
      continue;
    }
    norm_head(head, with, cache.head_dim, rule, row);
    rotate_head(with, cache.head_dim, row, [&](int dim, float value) {
      if (is_query) {
        query[dim] = value;
      } else {
        cache.store(cache.keys, cache.at(kv_head, with.slot, dim), value);
      }
    });
    __syncwarp();  // before the row is filled anew
  }
  if (!waited) wait_for_previous();
}

}  // namespace

cudaError_t prepare_heads(cudaStream_t stream, const prepare_heads_launch& what) {
  const std::int64_t all = what.write.tokens * (what.query_heads + 2 * what.write.cache.heads);
  if (all > INT32_MAX) return cudaErrorInvalidValue;  // a step has 65,536 tokens at most
  return launch(stream,
                {.grid = grid_of((all + warps - 1) / warps), .block = dim3(warps * warp_threads)},
                prepare_heads_kernel, what);
}

}  // namespace troupe::kernels::cuda
