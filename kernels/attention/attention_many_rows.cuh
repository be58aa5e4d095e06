// Attention of many rows of a sequence over a bfloat16 cache: a warp 16 rows, tiles of 64 positions
// one after the other.
#pragma once

#include "kernels/attention/attention_warp.cuh"

namespace troupe::kernels::cuda {

inline constexpr int many_rows_warps = 4;
inline constexpr int many_rows_tile = many_rows_warps * 16;  // packed rows of a CTA

// Two stages of K and V, then the group of heads.
template <int HeadDim>
inline constexpr std::size_t many_rows_shared_bytes =
    std::size_t{4} * attention_tile_elements<HeadDim> * sizeof(bfloat16) + sizeof(head_group);

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
  const std::int64_t warp_last = __reduce_max_sync(0xFFFFFFFFU, max(seen.last[0], seen.last[1]));
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

}  // namespace troupe::kernels::cuda
