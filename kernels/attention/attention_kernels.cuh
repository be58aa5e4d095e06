// The attention kernels over a bfloat16 cache: many rows of a sequence, and one row with its
// positions spread over warps and CTAs. Both join tiles of 64 positions in ascending order.
#pragma once

#include "kernels/attention/attention_warp.cuh"

namespace troupe::kernels::cuda {

inline constexpr int many_rows_warps = 4;
inline constexpr int many_rows_tile = many_rows_warps * 16;  // packed rows of a CTA

// Two stages of K and V, then the group of heads.
template <int HeadDim>
inline constexpr std::size_t many_rows_shared_bytes =
    std::size_t{4} * attention_tile_elements<HeadDim> * sizeof(bfloat16) + sizeof(head_group);

// A CTA of the many-rows kernel: `first` packed row of a sequence.
struct row_tile {
  std::int32_t sequence;
  std::int32_t first;
};

template <int HeadDim>
__device__ __forceinline__ void attend_tiles(const attention_args_device& args,
                                             const tile_source& from, const visible_range& seen,
                                             const std::uint32_t (&query)[HeadDim / 16][4],
                                             bfloat16* shared, attention_sums<HeadDim>& total) {
  constexpr int threads = many_rows_warps * warp_threads;
  constexpr int elements = attention_tile_elements<HeadDim>;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t first = from.first / attention_tile_positions;
  const std::int64_t last = from.last / attention_tile_positions;
  const std::int64_t warp_last =
      __reduce_max_sync(0xFFFFFFFFU, static_cast<int>(max(seen.last[0], seen.last[1])));
  fetch_tile<HeadDim, threads>(args, from, first, thread, shared, shared + elements);
  __pipeline_commit();
  for (std::int64_t tile = first; tile <= last; ++tile) {
    bfloat16* const now = shared + (tile - first) % 2 * 2 * elements;
    bfloat16* const next = shared + (tile - first + 1) % 2 * 2 * elements;
    if (tile < last) {
      fetch_tile<HeadDim, threads>(args, from, tile + 1, thread, next, next + elements);
    }
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    // A tile behind all rows of the warp would change nothing, to the bit.
    if (tile * attention_tile_positions <= warp_last) {
      attention_sums<HeadDim> sums;
      attend_tile<HeadDim>(sums, query, now, now + elements, tile * attention_tile_positions, seen,
                           args.scale_log2);
      join_tile(total, sums);
    }
    __syncthreads();  // before the next fetch overwrites it
  }
}

template <int HeadDim>
__global__ void __launch_bounds__(many_rows_warps* warp_threads)
    many_rows_kernel(const __grid_constant__ attention_args_device args, const row_tile* tiles) {
  extern __shared__ uint4 memory[];
  auto* const shared = reinterpret_cast<bfloat16*>(memory);
  auto& group = *reinterpret_cast<head_group*>(shared + 4 * attention_tile_elements<HeadDim>);
  wait_for_previous();
  release_next();
  const row_tile mine = tiles[blockIdx.x];
  const device_sequence sequence = args.sequences[mine.sequence];
  const int kv_head = static_cast<int>(blockIdx.y);
  find_group(args, kv_head, group);
  __syncthreads();
  const std::int64_t packed = sequence.rows * group.count;
  if (mine.first >= packed) return;
  const std::int64_t end = min(packed, std::int64_t{mine.first} + many_rows_tile);
  const std::int64_t first_position = sequence.first_position + mine.first / group.count;
  const tile_source from{
      .sequence = &sequence,
      .kv_head = kv_head,
      .first = args.window > 0 ? max(std::int64_t{0}, first_position - args.window + 1) : 0,
      .last = sequence.first_position + (end - 1) / group.count};
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const lane_rows rows = rows_of_lane(sequence, group, mine.first + warp * 16);
  const visible_range seen = range_of(args, sequence, rows);
  std::uint32_t query[HeadDim / 16][4];
  load_query<HeadDim>(args, sequence, rows, query);
  attention_sums<HeadDim> total;
  total.clear();
  attend_tiles<HeadDim>(args, from, seen, query, shared, total);
  store_rows<HeadDim>(args, sequence, rows, total);
}

inline constexpr int one_row_warps =
    2;  // tiles of a CTA: 70 KiB at 128 dimensions, three CTAs an SM

// A tile of K and V for each warp, then the group of heads.
template <int HeadDim>
inline constexpr std::size_t one_row_shared_bytes =
    std::size_t{2} * one_row_warps* attention_tile_elements<HeadDim> * sizeof(bfloat16) +
    sizeof(head_group);

struct one_row_work {
  const std::int32_t* sequences;  // whose turn it is; null: all of them
  int row_blocks;                 // of 16 heads a group needs
  unsigned* arrived;              // [grid z][grid y], zero before and after
  float* tiles;                   // [grid z][query heads][tiles_max][kept_floats]
  int tiles_max;
};

// One head's sums of a tile: out, then maximum and weight; 16 bytes of room behind.
template <int HeadDim>
inline constexpr int kept_floats = HeadDim + 4;

template <int HeadDim>
__device__ __forceinline__ float* kept_at(const one_row_work& work, int heads, int head,
                                          std::int64_t tile) {
  const std::int64_t place = (std::int64_t{blockIdx.z} * heads + head) * work.tiles_max + tile;
  return work.tiles + place * kept_floats<HeadDim>;
}

template <int HeadDim>
__device__ __forceinline__ void keep_tile(const one_row_work& work, int heads,
                                          const lane_rows& rows, std::int64_t tile,
                                          const attention_sums<HeadDim>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!rows.valid[half]) continue;
    float* const to = kept_at<HeadDim>(work, heads, rows.head[half], tile);
#pragma unroll
    for (int i = 0; i < HeadDim / 8; ++i) {
      *reinterpret_cast<float2*>(to + i * 8 + lane % 4 * 2) =
          make_float2(sums.out[i][half * 2], sums.out[i][half * 2 + 1]);
    }
    if (lane % 4 == 0) {
      *reinterpret_cast<float2*>(to + HeadDim) = make_float2(sums.maximum[half], sums.weight[half]);
    }
  }
}

// Joins the kept tiles of some heads in ascending order: a thread four dimensions of a head.
template <int HeadDim>
__device__ __forceinline__ void join_kept(const attention_args_device& args,
                                          const one_row_work& work, const head_group& group,
                                          const device_sequence& sequence, int first_head,
                                          std::int64_t first, std::int64_t last) {
  constexpr int quads = HeadDim / 4;
  const int count = min(16, group.count - first_head);
  for (int at = static_cast<int>(threadIdx.x); at < count * quads;
       at += static_cast<int>(blockDim.x)) {
    const int head = group.heads[first_head + at / quads];
    const int dim = at % quads * 4;
    float maximum = -INFINITY;
    float weight = 0.0F;
    float sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll 4
    for (std::int64_t tile = first; tile <= last; ++tile) {
      const float* const from = kept_at<HeadDim>(work, args.heads, head, tile);
      const float4 out = __ldcg(reinterpret_cast<const float4*>(from + dim));
      const float2 about = __ldcg(reinterpret_cast<const float2*>(from + HeadDim));
      const attention_merge merge = merge_of(maximum, about.x);
      maximum = merge.maximum;
      weight = merged(merge, weight, about.y);
      sums[0] = merged(merge, sums[0], out.x);
      sums[1] = merged(merge, sums[1], out.y);
      sums[2] = merged(merge, sums[2], out.z);
      sums[3] = merged(merge, sums[3], out.w);
    }
    const std::int64_t to =
        sequence.first_row * args.output_stride + std::int64_t{head} * args.head_dim + dim;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (dim + i < args.head_dim) store_out(args, to + i, sums[i], weight);
    }
  }
}

// Whether this CTA is the last of `all` that arrives at its place; then what they wrote is visible.
__device__ __forceinline__ bool arrives_last(unsigned* arrived, unsigned all) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(arrived, 1U) + 1 == all;
    if (last) *arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// Grid: pairs of tiles, cache heads x row blocks, sequences of one row.
template <int HeadDim>
__global__ void __launch_bounds__(one_row_warps* warp_threads)
    one_row_kernel(const __grid_constant__ attention_args_device args,
                   const __grid_constant__ one_row_work work) {
  extern __shared__ uint4 memory[];
  auto* const shared = reinterpret_cast<bfloat16*>(memory);
  constexpr int elements = attention_tile_elements<HeadDim>;
  auto& group = *reinterpret_cast<head_group*>(shared + 2 * one_row_warps * elements);
  wait_for_previous();
  release_next();
  const int index = static_cast<int>(blockIdx.z);
  const device_sequence sequence =
      args.sequences[work.sequences == nullptr ? index : work.sequences[index]];
  const int kv_head = static_cast<int>(blockIdx.y) / work.row_blocks;
  const int first_head = static_cast<int>(blockIdx.y) % work.row_blocks * 16;
  const std::int64_t position = sequence.first_position;
  const tile_source from{
      .sequence = &sequence,
      .kv_head = kv_head,
      .first = args.window > 0 ? max(std::int64_t{0}, position - args.window + 1) : 0,
      .last = position};
  const std::int64_t first = from.first / attention_tile_positions;
  const std::int64_t last = from.last / attention_tile_positions;
  const std::int64_t begin = std::int64_t{blockIdx.x} * one_row_warps;
  if (begin > last || begin + one_row_warps <= first) return;
  find_group(args, kv_head, group);
  __syncthreads();
  if (first_head >= group.count) return;

  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const std::int64_t tile = begin + warp;
  if (tile >= first && tile <= last) {
    bfloat16* const keys = shared + 2 * warp * elements;
    fetch_tile<HeadDim, warp_threads>(
        args, from, tile, static_cast<int>(threadIdx.x) % warp_threads, keys, keys + elements);
    __pipeline_commit();
    const lane_rows rows = rows_of_lane(sequence, group, first_head);
    const visible_range seen = range_of(args, sequence, rows);
    std::uint32_t query[HeadDim / 16][4];
    load_query<HeadDim>(args, sequence, rows, query);
    __pipeline_wait_prior(0);
    __syncwarp();
    attention_sums<HeadDim> sums;
    attend_tile<HeadDim>(sums, query, keys, keys + elements, tile * attention_tile_positions, seen,
                         args.scale_log2);
    keep_tile<HeadDim>(work, args.heads, rows, tile, sums);
  }
  const auto all = static_cast<unsigned>(last / one_row_warps - first / one_row_warps + 1);
  const std::size_t place = static_cast<std::size_t>(blockIdx.z) * gridDim.y + blockIdx.y;
  if (arrives_last(work.arrived + place, all)) {
    join_kept<HeadDim>(args, work, group, sequence, first_head, first, last);
  }
}

}  // namespace troupe::kernels::cuda
