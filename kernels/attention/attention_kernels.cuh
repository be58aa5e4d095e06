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

// One row of a sequence: a CTA a tile, whose four warps share its positions, then its dimensions;
// another kernel joins the tiles.
inline constexpr int one_row_warps = 4;
inline constexpr int one_row_threads = one_row_warps * warp_threads;

// A tile of K and V, the group of heads, and the warps' scores as each lane holds them.
template <int HeadDim>
inline constexpr std::size_t one_row_shared_bytes =
    std::size_t{2} * attention_tile_elements<HeadDim> * sizeof(bfloat16) +
    attention_columns* warp_threads * sizeof(float4) + sizeof(head_group);

struct one_row_work {
  const std::int32_t* sequences;  // whose turn it is; null: all of them
  int row_blocks;                 // of 16 heads a group needs
  float* tiles;                   // [sequences][query heads][tiles_max][kept_floats]
  int tiles_max;

  __device__ __forceinline__ const device_sequence& sequence(const attention_args_device& args,
                                                             int index) const {
    return args.sequences[sequences == nullptr ? index : sequences[index]];
  }
};

// One head's sums of a tile: out, then maximum and weight; 16 bytes of room behind.
template <int HeadDim>
inline constexpr int kept_floats = HeadDim + 4;

template <int HeadDim>
__device__ __forceinline__ float* kept_at(const one_row_work& work, int heads, int sequence,
                                          int head, std::int64_t tile) {
  const std::int64_t place = (std::int64_t{sequence} * heads + head) * work.tiles_max + tile;
  return work.tiles + place * kept_floats<HeadDim>;
}

// The tiles that a row at this position sees some of.
struct tile_range {
  std::int64_t first;
  std::int64_t last;

  __device__ __forceinline__ tile_range(const attention_args_device& args, std::int64_t position)
      : first(first_position(args, position) / attention_tile_positions),
        last(position / attention_tile_positions) {}
  __device__ __forceinline__ static std::int64_t first_position(const attention_args_device& args,
                                                                std::int64_t position) {
    return args.window > 0 ? max(std::int64_t{0}, position - args.window + 1) : 0;
  }
};

// This warp's share of the tile's dimensions, in pairs of 8: pairs warp, warp + 4, ...
template <int HeadDim>
struct warp_dims {
  static constexpr int pairs = HeadDim / 16;
  static constexpr int most = (pairs + one_row_warps - 1) / one_row_warps;
  float out[most][2][4];

  __device__ __forceinline__ static int pair(int i) {
    return static_cast<int>(threadIdx.x) / warp_threads + i * one_row_warps;
  }
  __device__ __forceinline__ void add(const float (&weights)[attention_columns][4],
                                      const bfloat16* values) {
#pragma unroll
    for (int i = 0; i < most; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) out[i][0][k] = out[i][1][k] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < attention_tile_positions / 16; ++step) {
      std::uint32_t a[4];
      pack_step(weights, step, a);
#pragma unroll
      for (int i = 0; i < most; ++i) {
        if (pair(i) < pairs) {
          add_values<HeadDim>(out[i][0], out[i][1], a, values, step, pair(i) * 16);
        }
      }
    }
  }
  __device__ __forceinline__ void keep(float* to, int half) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads;
#pragma unroll
    for (int i = 0; i < most; ++i) {
      if (pair(i) >= pairs) continue;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        *reinterpret_cast<float2*>(to + pair(i) * 16 + part * 8 + lane % 4 * 2) =
            make_float2(out[i][part][half * 2], out[i][part][half * 2 + 1]);
      }
    }
  }
};

// Grid: tiles, cache heads x row blocks, sequences of one row.
template <int HeadDim>
__global__ void __launch_bounds__(one_row_threads)
    one_row_kernel(const __grid_constant__ attention_args_device args,
                   const __grid_constant__ one_row_work work) {
  extern __shared__ uint4 memory[];
  constexpr int elements = attention_tile_elements<HeadDim>;
  auto* const keys = reinterpret_cast<bfloat16*>(memory);
  bfloat16* const values = keys + elements;
  auto* const shared_scores = reinterpret_cast<float4*>(values + elements);
  auto& group = *reinterpret_cast<head_group*>(shared_scores + attention_columns * warp_threads);
  const auto index = static_cast<int>(blockIdx.z);
  const device_sequence sequence = work.sequence(args, index);
  const int kv_head = static_cast<int>(blockIdx.y) / work.row_blocks;
  const int first_head = static_cast<int>(blockIdx.y) % work.row_blocks * 16;
  const std::int64_t position = sequence.first_position;
  const tile_range range(args, position);
  const std::int64_t tile = blockIdx.x;
  if (tile < range.first || tile > range.last) {
    wait_for_previous();
    return;
  }
  const tile_source from{.sequence = &sequence,
                         .kv_head = kv_head,
                         .first = tile_range::first_position(args, position),
                         .last = position};
  const auto fetch = [&] {
    fetch_tile<HeadDim, one_row_threads>(args, from, tile, static_cast<int>(threadIdx.x), keys,
                                         values);
    __pipeline_commit();
  };
  // Earlier steps wrote all but the last tile.
  if (tile < range.last) fetch();
  find_group(args, kv_head, group);
  wait_for_previous();
  release_next();
  if (tile == range.last) fetch();
  __syncthreads();
  if (first_head >= group.count) return;
  const lane_rows rows = rows_of_lane(sequence, group, first_head);
  std::uint32_t query[HeadDim / 16][4];
  load_query<HeadDim>(args, sequence, rows, query);
  const visible_range seen = range_of(args, sequence, rows);
  __pipeline_wait_prior(0);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  constexpr int columns_each = attention_columns / one_row_warps;
#pragma unroll
  for (int i = 0; i < columns_each; ++i) {
    const int column = warp * columns_each + i;
    float d[4];
    score_columns<HeadDim>(d, query, keys, column * 8, tile * attention_tile_positions, seen,
                           args.scale_log2);
    shared_scores[column * warp_threads + lane] = make_float4(d[0], d[1], d[2], d[3]);
  }
  __syncthreads();
  // Every warp weighs all scores, in the order of one warp alone.
  float scores[attention_columns][4];
#pragma unroll
  for (int j = 0; j < attention_columns; ++j) {
    const float4 four = shared_scores[j * warp_threads + lane];
    scores[j][0] = four.x;
    scores[j][1] = four.y;
    scores[j][2] = four.z;
    scores[j][3] = four.w;
  }
  float maximum[2];
  float weight[2];
  weigh(scores, 0, maximum[0], weight[0]);
  weigh(scores, 1, maximum[1], weight[1]);
  warp_dims<HeadDim> dims;
  dims.add(scores, values);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!rows.valid[half]) continue;
    float* const to = kept_at<HeadDim>(work, args.heads, index, rows.head[half], tile);
    dims.keep(to, half);
    if (threadIdx.x % 4 == 0 && warp == 0) {
      *reinterpret_cast<float2*>(to + HeadDim) = make_float2(maximum[half], weight[half]);
    }
  }
}

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
  const std::int64_t to =
      sequence.first_row * args.output_stride + std::int64_t{head} * args.head_dim;
#pragma unroll
  for (int k = 0; k < each; ++k) {
    const int dim = thread + k * join_threads;
    if (dim < args.head_dim) store_out(args, to + dim, sums[k], weight);
  }
}

}  // namespace troupe::kernels::cuda
