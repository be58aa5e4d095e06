// What the attention kernels share around the tile arithmetic: which rows a warp has, tiles of K
// and V on their way to shared memory, results on their way out.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "kernels/attention/attention_tile.cuh"

namespace troupe::kernels::cuda {

inline constexpr int attention_heads_max = 1024;

// attention_launch as the kernels read it.
struct attention_args_device {
  const float* query;
  std::int64_t query_stride;
  const bfloat16* keys;
  const bfloat16* values;
  std::int64_t blocks;
  int head_dim;
  int heads;
  const std::int32_t* kv_head_of;
  const device_sequence* sequences;
  float scale_log2;
  std::int64_t window;
  void* output;
  bool output_is_bfloat16;
  std::int64_t output_stride;
};

// A CTA of a kernel for many rows: `first` packed row of a sequence.
struct row_tile {
  std::int32_t sequence;
  std::int32_t first;
};

// The query heads that read one cache head, in ascending order.
struct head_group {
  std::int16_t heads[attention_heads_max];
  int count;
};

// By the first warp; the caller synchronises.
__device__ __forceinline__ void find_group(const attention_args_device& args, int kv_head,
                                           head_group& group) {
  if (threadIdx.x >= warp_threads) return;
  int count = 0;
  for (int base = 0; base < args.heads; base += warp_threads) {
    const int head = base + static_cast<int>(threadIdx.x);
    const bool mine = head < args.heads && args.kv_head_of[head] == kv_head;
    const unsigned found = __ballot_sync(0xFFFFFFFFU, mine);
    const unsigned before = found & ((1U << threadIdx.x) - 1U);
    if (mine) group.heads[count + __popc(before)] = static_cast<std::int16_t>(head);
    count += __popc(found);
  }
  if (threadIdx.x == 0) group.count = count;
}

// The two query rows of a lane among the packed (token, head of the group) rows of a sequence.
struct lane_rows {
  bool valid[2];
  std::int64_t token[2];  // within the sequence
  int head[2];
};

__device__ __forceinline__ lane_rows rows_of_lane(const device_sequence& sequence,
                                                  const head_group& group, std::int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  lane_rows rows;
  for (int half = 0; half < 2; ++half) {
    const std::int64_t packed = first + lane / 4 + half * 8;
    rows.valid[half] = packed < sequence.rows * group.count;
    rows.token[half] = rows.valid[half] ? packed / group.count : 0;
    rows.head[half] = rows.valid[half] ? group.heads[packed % group.count] : 0;
  }
  return rows;
}

__device__ __forceinline__ visible_range range_of(const attention_args_device& args,
                                                  const device_sequence& sequence,
                                                  const lane_rows& rows) {
  visible_range seen;
  for (int half = 0; half < 2; ++half) {
    const std::int64_t position = sequence.first_position + rows.token[half];
    const std::int64_t first = args.window > 0 ? position - args.window + 1 : 0;
    seen.last[half] = rows.valid[half] ? static_cast<std::int32_t>(position) : -1;  // nothing
    seen.first[half] = static_cast<std::int32_t>(max(std::int64_t{0}, first));
  }
  return seen;
}

template <int HeadDim>
__device__ __forceinline__ void load_query(const attention_args_device& args,
                                           const device_sequence& sequence, const lane_rows& rows,
                                           std::uint32_t (&query)[HeadDim / 16][4]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
#pragma unroll
  for (int step = 0; step < HeadDim / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int half = part % 2;
      const int dim = step * 16 + part / 2 * 8 + lane % 4 * 2;
      const float* const from = args.query +
                                (sequence.first_row + rows.token[half]) * args.query_stride +
                                std::int64_t{rows.head[half]} * args.head_dim + dim;
      const float low = rows.valid[half] && dim < args.head_dim ? from[0] : 0.0F;
      const float high = rows.valid[half] && dim + 1 < args.head_dim ? from[1] : 0.0F;
      query[step][part] = pack_pair(low, high);
    }
  }
}

// Positions [first, last] of one cache head; what a tile has outside is filled with zeros, so that
// no row meets a value that none of its launch may see.
struct tile_source {
  const device_sequence* sequence;
  int kv_head;
  std::int64_t first;
  std::int64_t last;
};

// The cache blocks of a tile's four times 16 positions; 0 where nothing of them is fetched.
struct tile_blocks {
  std::int32_t of[attention_tile_positions / cache_block_positions];

  __device__ __forceinline__ tile_blocks(const tile_source& from, std::int64_t tile) {
#pragma unroll
    for (int i = 0; i < attention_tile_positions / cache_block_positions; ++i) {
      const std::int64_t begin = tile * attention_tile_positions + i * cache_block_positions;
      const bool wanted = begin + cache_block_positions > from.first && begin <= from.last;
      of[i] = wanted ? from.sequence->table[begin / cache_block_positions] : 0;
    }
  }
};

// By `Threads` threads of which this is number `thread`.
template <int HeadDim, int Threads>
__device__ __forceinline__ void fetch_tile(const attention_args_device& args,
                                           const tile_source& from, std::int64_t tile, int thread,
                                           bfloat16* keys, bfloat16* values) {
  constexpr int units = HeadDim / 8;
  constexpr int all = attention_tile_positions * units;
  const tile_blocks blocks(from, tile);
  const std::int64_t head = std::int64_t{from.kv_head} * args.blocks;
#pragma unroll
  for (int round = 0; round < (all + Threads - 1) / Threads; ++round) {
    const int at = thread + round * Threads;
    if (all % Threads != 0 && at >= all) break;
    const int row = at / units;
    const int unit = at % units;
    const std::int64_t position = tile * attention_tile_positions + row;
    const bool inside = position >= from.first && position <= from.last && unit * 8 < args.head_dim;
    const int quarter = row / cache_block_positions;
    const std::int32_t block = quarter < 2 ? (quarter == 0 ? blocks.of[0] : blocks.of[1])
                                           : (quarter == 2 ? blocks.of[2] : blocks.of[3]);
    const std::int64_t source =
        inside ? ((head + block) * cache_block_positions + row % cache_block_positions) *
                         args.head_dim +
                     unit * 8
               : 0;
    const int to = row * attention_pitch<HeadDim> + unit * 8;
    __pipeline_memcpy_async(keys + to, args.keys + source, 16, inside ? 0 : 16);
    __pipeline_memcpy_async(values + to, args.values + source, 16, inside ? 0 : 16);
  }
}

// A result is its sum times the inverse of the row's weight. No zero has a sign.
__device__ __forceinline__ float result_of(float sum, float inverse) {
  return __fadd_rn(__fmul_rn(sum, inverse), 0.0F);
}
__device__ __forceinline__ void store_out(const attention_args_device& args, std::int64_t at,
                                          float value) {
  if (args.output_is_bfloat16) {
    static_cast<bfloat16*>(args.output)[at] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(args.output)[at] = value;
  }
}

template <int HeadDim>
__device__ __forceinline__ void store_rows(const attention_args_device& args,
                                           const device_sequence& sequence, const lane_rows& rows,
                                           const attention_sums<HeadDim>& total) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!rows.valid[half]) continue;
    const std::int64_t to = (sequence.first_row + rows.token[half]) * args.output_stride +
                            std::int64_t{rows.head[half]} * args.head_dim;
    const float inverse = __frcp_rn(total.weight[half]);
    const bool pairs = args.output_is_bfloat16 && to % 2 == 0;  // 4 bytes a store
#pragma unroll
    for (int i = 0; i < HeadDim / 8; ++i) {
      const int dim = i * 8 + lane % 4 * 2;
      if (dim >= args.head_dim) break;  // which is a multiple of 8
      const float low = result_of(total.out[i][half * 2], inverse);
      const float high = result_of(total.out[i][half * 2 + 1], inverse);
      if (pairs) {
        auto* const bytes = static_cast<bfloat16*>(args.output) + to + dim;
        *reinterpret_cast<std::uint32_t*>(bytes) = pack_pair(low, high);
      } else {
        store_out(args, to + dim, low);
        store_out(args, to + dim + 1, high);
      }
    }
  }
}

template <int HeadDim>
inline constexpr int attention_tile_elements = attention_tile_positions* attention_pitch<HeadDim>;

}  // namespace troupe::kernels::cuda
