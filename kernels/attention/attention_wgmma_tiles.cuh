// Tiles of K and V for attention_wgmma.cu: how they lie in shared memory, and the warp that brings
// them there, by the copy engine from the paged cache. sm_90a only.
#pragma once

#include "kernels/attention/attention_warp.cuh"
#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace troupe::kernels::cuda {

inline constexpr int part_dims = k_tile_row_bytes / 2;
inline constexpr int part_bytes = attention_tile_positions * k_tile_row_bytes;     // of 64 rows
inline constexpr int block_part_bytes = cache_block_positions * k_tile_row_bytes;  // of 16 rows
inline constexpr int tile_blocks_count = attention_tile_positions / cache_block_positions;

// Tiles of K and of a warpgroup's queries lie in parts of 64 dimensions by 64 rows. Those of V,
// behind K, lie block by block, which is one copy each: parts of 64 dimensions by 16 rows.
template <int HeadDim>
struct wgmma_attention_shape {
  static constexpr int parts = HeadDim / part_dims;
  static constexpr int block_bytes = parts * block_part_bytes;
  static constexpr int tile_bytes = parts * part_bytes;
  static constexpr int stage_bytes = 2 * tile_bytes;
  static constexpr int stages = HeadDim > 64 ? 5 : 8;  // what fits
  static constexpr int cluster = 1;
  static constexpr int queries_bytes = 2 * tile_bytes;
  static constexpr std::size_t shared_bytes = swizzle_atom_bytes + stages * stage_bytes +
                                              queries_bytes + barrier_area_bytes +
                                              sizeof(head_group);
};

struct cache_maps {
  CUtensorMap keys;    // [cache heads x blocks x 16 positions][head_dim]
  CUtensorMap values;  // [head_dim / 64][cache heads x blocks x 16 positions][64]
  std::int32_t rows;   // the first that is not there
};

// A CTA's share: `first` packed row and what its rows see.
struct cta_rows {
  device_sequence sequence;
  int kv_head;
  std::int64_t first;
  std::int32_t first_tile;
  std::int32_t last_tile;
};

// 16 bytes of 8 dimensions in swizzled rows whose parts of 64 dimensions have so many bytes.
__device__ __forceinline__ std::uint32_t swizzled(int row, int unit, int bytes) {
  return unit / 8 * bytes + row * k_tile_row_bytes + (unit % 8 ^ row % 8) * 16;
}

// One warp fills stages with the tiles of a CTA's rows.
template <int HeadDim>
struct tile_producer {
  using shape = wgmma_attention_shape<HeadDim>;
  const attention_args_device& args;
  const cache_maps& maps;
  const cta_rows& rows;
  std::int32_t first_block;  // of the cache head
  // Positions that some row of the launch sees; what tiles have outside is filled with zeros.
  std::int32_t first;
  std::int32_t last;

  __device__ __forceinline__ tile_producer(const attention_args_device& of,
                                           const cache_maps& of_cache, const cta_rows& of_rows)
      : args(of),
        maps(of_cache),
        rows(of_rows),
        first_block(static_cast<std::int32_t>(of_rows.kv_head * of.blocks)),
        first(static_cast<std::int32_t>(
            of.window > 0 ? max(std::int64_t{0}, of_rows.sequence.first_position - of.window + 1)
                          : 0)),
        last(static_cast<std::int32_t>(of_rows.sequence.first_position + of_rows.sequence.rows -
                                       1)) {}

  // Where the copies of a tile's blocks begin, as rows of the maps; `filled`: of a block only some
  // positions are seen, which is not for the copy engine.
  static constexpr std::int32_t filled = -1;
  struct block_rows {
    std::int32_t of[tile_blocks_count];
    bool whole;
  };
  __device__ __forceinline__ std::int32_t cached_row(std::int32_t position) const {
    const std::int32_t block = rows.sequence.table[position / cache_block_positions];
    return (first_block + block) * cache_block_positions;
  }
  __device__ __forceinline__ block_rows rows_of(std::int32_t tile) const {
    const std::int32_t position = tile * attention_tile_positions;
    block_rows found;
    found.whole = position >= first && position + attention_tile_positions - 1 <= last;
#pragma unroll
    for (int i = 0; i < tile_blocks_count; ++i) {
      const std::int32_t begin = position + i * cache_block_positions;
      const std::int32_t end = begin + cache_block_positions - 1;
      if (found.whole || (begin >= first && end <= last)) {
        found.of[i] = cached_row(begin);
      } else {  // behind all rows of the maps everything reads as zeros
        found.of[i] = begin > last || end < first ? maps.rows : filled;
      }
    }
    return found;
  }

  __device__ __forceinline__ static std::uint32_t values_at(std::uint32_t stage, int index) {
    return stage + shape::tile_bytes + index * shape::block_bytes;
  }
  __device__ __forceinline__ void fill(std::uint32_t stage, int index, std::int32_t begin) const {
    constexpr int units = HeadDim / 8;
    const std::int32_t from = cached_row(begin);
    for (int i = lane_id(); i < cache_block_positions * units; i += warp_threads) {
      const int row = i / units;
      const int unit = i % units;
      uint4 key{};
      uint4 value{};
      if (begin + row >= first && begin + row <= last && unit * 8 < args.head_dim) {
        const std::int64_t at = std::int64_t{from + row} * args.head_dim + unit * 8;
        key = *reinterpret_cast<const uint4*>(args.keys + at);
        value = *reinterpret_cast<const uint4*>(args.values + at);
      }
      const int in_tile = index * cache_block_positions + row;
      store_shared(stage + swizzled(in_tile, unit, part_bytes), key);
      store_shared(values_at(stage, index) + swizzled(row, unit, block_part_bytes), value);
    }
  }
  // Returns how many blocks were not for the copy engine.
  __device__ __forceinline__ int fill_blocks(std::uint32_t stage, std::int32_t tile,
                                             const block_rows& from) const {
    int count = 0;
#pragma unroll
    for (int i = 0; i < tile_blocks_count; ++i) {
      if (from.of[i] != filled) continue;
      fill(stage, i, tile * attention_tile_positions + i * cache_block_positions);
      ++count;
    }
    publish_to_async();
    __syncwarp();
    return count;
  }
  __device__ __forceinline__ void copy(const ring<shape>& to, int index, std::int32_t from,
                                       std::uint64_t policy) const {
#pragma unroll
    for (int part = 0; part < shape::parts; ++part) {
      const std::uint32_t at = to.address() + part * part_bytes + index * block_part_bytes;
      copy_2d({at, to.full(), policy}, maps.keys, part * part_dims, from);
    }
    copy_3d({values_at(to.address(), index), to.full(), policy}, maps.values, from);
  }

  __device__ __forceinline__ void produce(ring<shape> to) const {
    const std::uint64_t policy = policy_evict_normal();
    block_rows next = rows_of(rows.first_tile);
    for (std::int32_t tile = rows.first_tile; tile <= rows.last_tile; ++tile) {
      const block_rows from = next;
      next = rows_of(min(tile + 1, rows.last_tile));  // on its way while this one is copied
      to.wait_empty();
      const int missing = from.whole ? 0 : fill_blocks(to.address(), tile, from);
      if (lane_id() == 0) {
        barrier_arrive_expect(to.full(),
                              (tile_blocks_count - missing) * 2 * shape::parts * block_part_bytes);
#pragma unroll
        for (int i = 0; i < tile_blocks_count; ++i) {
          if (from.of[i] != filled) copy(to, i, from.of[i], policy);
        }
      }
      __syncwarp();
      to.advance();
    }
  }
};

}  // namespace troupe::kernels::cuda
