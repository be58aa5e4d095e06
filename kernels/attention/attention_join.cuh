// Joins what attention_one_row.cuh kept of a head's tiles, in ascending order.
#pragma once

#include "kernels/attention/attention_one_row.cuh"

namespace troupe::kernels::cuda {

inline constexpr int join_threads = 128;

// What each of some tiles is joined with.
struct join_chunk {
  float left[join_threads];
  float right[join_threads];
  float weight[join_threads];
  float warp_maximum[join_threads / warp_threads];
};

// The largest of `value` up to this thread and of `before`.
__device__ __forceinline__ float maximum_so_far(float value, float before, join_chunk& shared) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
#pragma unroll
  for (int offset = 1; offset < warp_threads; offset *= 2) {
    const float other = __shfl_up_sync(0xFFFFFFFFU, value, offset);
    if (lane >= offset) value = fmaxf(value, other);
  }
  if (lane == warp_threads - 1) shared.warp_maximum[warp] = value;
  __syncthreads();
  value = fmaxf(value, before);
  for (int i = 0; i < warp; ++i) value = fmaxf(value, shared.warp_maximum[i]);
  return value;
}

// Joins the kept tiles of a head in ascending order, a thread a dimension (at 256 two): first how
// each tile is weighed against those before it, by as many threads, then the chain of sums.
// Grid: query heads, sequences of one row.
template <int HeadDim>
__global__ void __launch_bounds__(join_threads)
    join_kernel(const __grid_constant__ attention_args_device args,
                const __grid_constant__ one_row_work work) {
  __shared__ join_chunk shared;
  __shared__ float chunk_maximum;
  constexpr int each = (HeadDim + join_threads - 1) / join_threads;
  const auto thread = static_cast<int>(threadIdx.x);
  const auto head = static_cast<int>(blockIdx.x);
  const auto index = static_cast<int>(blockIdx.y);
  const device_sequence sequence = work.sequence(args, index);
  const tile_range range(args, sequence.first_position);
  wait_for_previous();
  release_next();
  float weight = 0.0F;
  float sums[each] = {};
  float before = -INFINITY;
  for (std::int64_t begin = range.first; begin <= range.last; begin += join_threads) {
    const auto count = static_cast<int>(min(range.last - begin + 1, std::int64_t{join_threads}));
    const float* const tiles = kept_at<HeadDim>(work, args.heads, index, head, begin);
    float2 about = make_float2(-INFINITY, 0.0F);
    if (thread < count) {
      about = *reinterpret_cast<const float2*>(tiles + thread * kept_floats<HeadDim> + HeadDim);
    }
    const float maximum = maximum_so_far(about.x, before, shared);
    float earlier = __shfl_up_sync(0xFFFFFFFFU, maximum, 1);
    if (thread % warp_threads == 0) {
      earlier = before;
      for (int i = 0; i < thread / warp_threads; ++i) {
        earlier = fmaxf(earlier, shared.warp_maximum[i]);
      }
    }
    const attention_merge merge = merge_of(earlier, about.x);
    shared.left[thread] = merge.left;
    shared.right[thread] = merge.right;
    shared.weight[thread] = about.y;
    if (thread == join_threads - 1) chunk_maximum = maximum;
    __syncthreads();
    before = chunk_maximum;
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const attention_merge by{0.0F, shared.left[i], shared.right[i]};
      weight = merged(by, weight, shared.weight[i]);
#pragma unroll
      for (int k = 0; k < each; ++k) {
        const int dim = thread + k * join_threads;
        const float later = dim < HeadDim ? tiles[i * kept_floats<HeadDim> + dim] : 0.0F;
        sums[k] = merged(by, sums[k], later);
      }
    }
    __syncthreads();  // before the next chunk overwrites it
  }
  const float inverse = __frcp_rn(weight);
  const std::int64_t to =
      sequence.first_row * args.output_stride + std::int64_t{head} * args.head_dim;
#pragma unroll
  for (int k = 0; k < each; ++k) {
    const int dim = thread + k * join_threads;
    if (dim < args.head_dim) store_out(args, to + dim, result_of(sums[k], inverse));
  }
}

}  // namespace troupe::kernels::cuda
