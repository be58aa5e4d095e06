// Attention of one row of a sequence over a bfloat16 cache: a CTA a tile of 64 positions, whose
// four warps share its positions, then its dimensions. attention_join.cuh joins the tiles.
#pragma once

#include "kernels/attention/attention_warp.cuh"

namespace troupe::kernels::cuda {

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

// The scores of the whole tile, of which each warp computes a part; every warp gets all of them, as
// one warp alone would have computed them.
template <int HeadDim>
__device__ __forceinline__ void score_tile(const std::uint32_t (&query)[HeadDim / 16][4],
                                           const bfloat16* keys, std::int64_t tile_position,
                                           const visible_range& seen, float4* shared,
                                           float (&scores)[attention_columns][4]) {
  constexpr int columns_each = attention_columns / one_row_warps;
  const int warp = static_cast<int>(threadIdx.x) / warp_threads;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
#pragma unroll
  for (int i = 0; i < columns_each; ++i) {
    const int column = warp * columns_each + i;
    float d[4];
    score_columns<HeadDim>(d, query, keys, column * 8, tile_position, seen);
    shared[column * warp_threads + lane] = make_float4(d[0], d[1], d[2], d[3]);
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < attention_columns; ++j) {
    const float4 four = shared[j * warp_threads + lane];
    scores[j][0] = four.x;
    scores[j][1] = four.y;
    scores[j][2] = four.z;
    scores[j][3] = four.w;
  }
}

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
  float scores[attention_columns][4];
  score_tile<HeadDim>(query, keys, tile * attention_tile_positions, seen, shared_scores, scores);
  float maximum[2];
  float weight[2];
  weigh(scores, 0, args.scale_log2, maximum[0], weight[0]);
  weigh(scores, 1, args.scale_log2, maximum[1], weight[1]);
  warp_dims<HeadDim> dims;
  dims.add(scores, values);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!rows.valid[half]) continue;
    float* const to = kept_at<HeadDim>(work, args.heads, index, rows.head[half], tile);
    dims.keep(to, half);
    if (threadIdx.x < warp_threads && threadIdx.x % 4 == 0) {
      *reinterpret_cast<float2*>(to + HeadDim) = make_float2(maximum[half], weight[half]);
    }
  }
}

}  // namespace troupe::kernels::cuda
