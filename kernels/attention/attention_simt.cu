#include "kernels/attention/attention_simt.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr int warps = 4;
constexpr int lane_dims_max = 16;  // head_dim up to 512

struct simt_query {
  std::int64_t row;
  std::int64_t position;
  int head;
  int kv_head;
};

template <class Element>
__device__ __forceinline__ void attend(const attention_launch& what,
                                       const device_sequence& sequence, const simt_query& query) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  const float* const from =
      what.query + query.row * what.query_stride + std::int64_t{query.head} * what.head_dim;
  float q[lane_dims_max];
  float sum[lane_dims_max];
#pragma unroll
  for (int i = 0; i < lane_dims_max; ++i) {
    const int dim = lane + i * warp_threads;
    q[i] = dim < what.head_dim ? from[dim] : 0.0F;
    sum[i] = 0.0F;
  }
  float maximum = -INFINITY;
  float weight = 0.0F;
  const std::int64_t first =
      what.window > 0 ? max(std::int64_t{0}, query.position - what.window + 1) : 0;
  for (std::int64_t position = first; position <= query.position; ++position) {
    const std::int64_t block = sequence.table[position / cache_block_positions];
    const std::int64_t at = ((query.kv_head * what.blocks + block) * cache_block_positions +
                             position % cache_block_positions) *
                            what.head_dim;
    const auto* const key = static_cast<const Element*>(what.keys) + at;
    const auto* const value = static_cast<const Element*>(what.values) + at;
    float dot = 0.0F;
#pragma unroll
    for (int i = 0; i < lane_dims_max; ++i) {
      const int dim = lane + i * warp_threads;
      if (dim < what.head_dim) dot = __fmaf_rn(q[i], to_float(key[dim]), dot);
    }
    const float score = __fmul_rn(warp_sum(dot), what.scale);
    const float larger = fmaxf(maximum, score);
    const float shrink = expf(__fsub_rn(maximum, larger));
    const float share = expf(__fsub_rn(score, larger));
    maximum = larger;
    weight = __fmaf_rn(weight, shrink, share);
#pragma unroll
    for (int i = 0; i < lane_dims_max; ++i) {
      const int dim = lane + i * warp_threads;
      if (dim < what.head_dim) {
        sum[i] = __fmaf_rn(share, to_float(value[dim]), __fmul_rn(sum[i], shrink));
      }
    }
  }
  const std::int64_t to = query.row * what.output_stride + std::int64_t{query.head} * what.head_dim;
#pragma unroll
  for (int i = 0; i < lane_dims_max; ++i) {
    const int dim = lane + i * warp_threads;
    if (dim >= what.head_dim) continue;
    const float value = __fdiv_rn(sum[i], weight);
    if (what.output_is_bfloat16) {
      static_cast<bfloat16*>(what.output)[to + dim] = __float2bfloat16_rn(value);
    } else {
      static_cast<float*>(what.output)[to + dim] = value;
    }
  }
}

// Grid: heads, sequences, rows in turn.
template <class Element>
__global__ void __launch_bounds__(warps* warp_threads)
    attention_simt_kernel(const __grid_constant__ attention_launch what) {
  wait_for_previous();
  release_next();
  const device_sequence sequence = what.sequences[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x);
  const int kv_head = what.kv_head_of[head];
  for (std::int64_t row = blockIdx.z * warps + threadIdx.x / warp_threads; row < sequence.rows;
       row += std::int64_t{gridDim.z} * warps) {
    attend<Element>(what, sequence,
                    {.row = sequence.first_row + row,
                     .position = sequence.first_position + row,
                     .head = head,
                     .kv_head = kv_head});
  }
}

}  // namespace

cudaError_t attention_simt(cudaStream_t stream, const attention_launch& what) {
  if (what.head_dim > lane_dims_max * warp_threads) return cudaErrorInvalidValue;
  std::int64_t rows = 1;
  for (std::int64_t i = 0; i < what.sequence_count; ++i) rows = max(rows, what.shapes[i].rows);
  constexpr std::int64_t grid_rows_max = 1024;
  const launch_shape shape{
      .grid = dim3(static_cast<unsigned>(what.heads), static_cast<unsigned>(what.sequence_count),
                   static_cast<unsigned>(min((rows + warps - 1) / warps, grid_rows_max))),
      .block = dim3(warps * warp_threads)};
  if (what.cache_is_bfloat16) {
    return launch(stream, shape, attention_simt_kernel<bfloat16>, what);
  }
  return launch(stream, shape, attention_simt_kernel<float>, what);
}

}  // namespace troupe::kernels::cuda
