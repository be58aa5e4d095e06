// What the attention kernels in tiles share: work memory, a group's blocks, the softmax of 16
// columns. Included by their sources only. `wide` takes up to 128 columns, `narrow` up to 16.
#pragma once

#include "kernels/attention/attention_prefetch.hpp"
#include "kernels/attention/attention_tiles.hpp"
#include "kernels/attention/attention_work.hpp"
#include "kernels/bfloat16.hpp"

#if TROUPE_TILES_POSSIBLE

#include <algorithm>
#include <cstring>
#include <limits>

namespace troupe::kernels::attention_detail::tiles {

inline constexpr std::int64_t token_tiles = group_tokens / tile_rows;  // 4: one cache block each
inline constexpr std::int64_t halves = group_tokens / tile_depth;  // 2: inputs of an output tile
inline constexpr std::int64_t tile_floats = tile_bytes / 4;
static_assert(kv_block_tokens == tile_rows);

// Work memory, in tiles of 1 KiB.
struct work_view {
  std::int64_t dim;
  std::int64_t depth_steps;   // tiles over the dimensions of a score, the last zero-padded
  std::int64_t output_tiles;  // tiles over the dimensions of an output
  std::byte* scores;          // [2 column tiles][4 token tiles], float32
  std::byte* probabilities;   // [2 column tiles][2 halves], bfloat16 pairs of tokens
  std::byte* key_tails;       // [4 token tiles]: the last depth step where it is short
  std::byte* values;          // [2 halves][output_tiles, rounded up to even]
  std::byte* queries;         // [column tiles][depth_steps]: Q^T, bfloat16 pairs of dimensions

  work_view(std::byte* memory, std::int64_t head_dim)
      : dim(head_dim),
        depth_steps(round_up(head_dim, tile_depth) / tile_depth),
        output_tiles(round_up(head_dim, tile_rows) / tile_rows),
        scores(memory),
        probabilities(scores + 2 * token_tiles * tile_bytes),
        key_tails(probabilities + 2 * halves * tile_bytes),
        values(key_tails + token_tiles * tile_bytes),
        queries(values + halves * round_up(output_tiles, 2) * tile_bytes) {}

  [[nodiscard]] std::byte* value_tile(std::int64_t half, std::int64_t tile) const {
    return values + (half * round_up(output_tiles, 2) + tile) * tile_bytes;
  }
};

[[nodiscard]] inline std::size_t work_bytes(std::int64_t columns_padded, std::int64_t head_dim) {
  const std::int64_t dims = round_up(head_dim, tile_depth) / tile_depth;
  const std::int64_t fixed = 2 * token_tiles + 2 * halves + token_tiles;
  const std::int64_t tiles = fixed + halves * 2 * dims + columns_padded / tile_rows * dims;
  return static_cast<std::size_t>(tiles * tile_bytes);
}

// A state's outputs: [columns padded to tiles][dimensions padded to a depth].
[[nodiscard]] inline std::int64_t output_floats(std::int64_t columns_padded,
                                                std::int64_t head_dim) {
  return columns_padded * round_up(head_dim, tile_depth);
}

// Q^T of all columns, rounded to bfloat16.
void pack_queries(const column_block& block, const work_view& work);

// What step() does in one group.
struct group_view {
  const column_block& block;
  const token_range& tokens;
  const work_view& work;
  // Per token tile; null: no column sees it.
  const std::uint16_t* keys[token_tiles] = {};
  const std::uint16_t* values[token_tiles] = {};
  bool partial = false;  // some column sees a part of the group only
  prefetcher ahead;
  std::uint64_t special_tokens = 0;  // places whose V was not finite and taken out

  // Copies the ends of K rows that do not fill a tile.
  group_view(const column_block& of, const token_range& range, const work_view& memory);
};

// Columns [first, first + 16 * tiles) of the item and the token tiles that they see.
struct column_tiles {
  std::int64_t first = 0;
  std::int64_t tiles = 1;
  std::int64_t token_begin = 0;
  std::int64_t token_end = token_tiles;
};

// Elements of `row` that are infinite or NaN: all bits of the exponent set.
TROUPE_TILES_INLINE __mmask32 not_finite(__m512i row) {
  const __m512i exponent = _mm512_set1_epi16(0x7F80);
  return _mm512_cmpeq_epi16_mask(_mm512_and_si512(row, exponent), exponent);
}

// The 32 rows of V of one half of a group. A row that no column sees is read under an empty mask.
struct half_rows {
  const std::uint16_t* row[tile_depth];
  std::uint32_t seen[tile_depth];  // all bits, or none

  half_rows(const group_view& group, std::int64_t half);
};

// 32 dimensions of V from `d` on of one token.
template <bool partial>
TROUPE_TILES_INLINE __m512i value_row(group_view& group, const half_rows& rows, std::int64_t index,
                                      std::int64_t half, std::int64_t d, __mmask32 mask) {
  __m512i row = _mm512_maskz_loadu_epi16(mask & rows.seen[index], rows.row[index] + d);
  if constexpr (partial) {
    const __mmask32 special = not_finite(row);
    if (special != 0) {
      row = _mm512_mask_mov_epi16(row, special, _mm512_setzero_si512());
      group.special_tokens |= std::uint64_t{1} << (half * tile_depth + index);
    }
  }
  return row;
}

// Where a tile of K lies: 16 tokens of token tile `token`, dimensions of depth step `step`.
struct key_tile {
  const void* address;
  std::int64_t stride;
};
TROUPE_TILES_INLINE key_tile key_tile_of(const group_view& group, std::int64_t token,
                                         std::int64_t step) {
  if ((step + 1) * tile_depth > group.work.dim) {
    return {group.work.key_tails + token * tile_bytes, tile_row_bytes};
  }
  return {group.keys[token] + step * tile_depth, group.work.dim * 2};
}

// Softmax of 16 columns: scores (raw, S^T) to probabilities, as bfloat16 pairs of tokens with zeros
// where a column sees nothing. Updates maximum and sum; returns the factor for the output so far.
[[nodiscard]] __m512 soften(group_view& group, const column_tiles& columns, std::int64_t tile,
                            float* state);

// A maximum and the factors that merge two states.
struct merge_factors {
  __m512 total;
  __m512 part;
};
// Merges maximum and sum of 16 columns of `part` into `total`.
[[nodiscard]] merge_factors merge_sums(float* total, const float* part, std::int64_t first,
                                       std::int64_t columns_padded);

// The probability of one token and column, of the 16 columns of `tile`.
[[nodiscard]] inline float probability_at(const work_view& work, std::int64_t tile,
                                          std::int64_t place, std::int64_t column) {
  std::uint16_t bits = 0;
  std::memcpy(&bits,
              work.probabilities + (tile * halves + place / tile_depth) * tile_bytes +
                  place % tile_depth / 2 * tile_row_bytes + column * 4 + place % 2 * 2,
              sizeof(bits));
  return from_bfloat16(bits);
}

// Calls add(dimension, column, probability * value) for the values that were taken out of V and the
// columns of a tile that see them. Rare: a sound model has none.
template <class Add>
void for_special_values(const group_view& group, std::int64_t tile, std::int64_t first,
                        const Add& add) {
  for (std::int64_t place = 0; place < group_tokens; ++place) {
    if ((group.special_tokens >> place & 1) == 0) continue;
    const std::int64_t position = group.tokens.first + place;
    const std::uint16_t* values =
        group.values[place / tile_rows] + place % tile_rows * group.work.dim;
    for (std::int64_t c = 0; c < tile_rows; ++c) {
      const auto column = static_cast<std::size_t>(first + c);
      if (position < group.block.first[column] || position > group.block.position[column]) continue;
      const float probability = probability_at(group.work, tile, place, c);
      for (std::int64_t d = 0; d < group.work.dim; ++d) {
        if ((values[d] & 0x7F80) != 0x7F80) continue;
        add(d, c, probability * from_bfloat16(values[d]));
      }
    }
  }
}

// Adding +0 leaves one kind of zero; NaN becomes the one quiet NaN.
TROUPE_TILES_INLINE __m512 normalised(__m512 value, __m512 sum) {
  const __m512 result = _mm512_add_ps(_mm512_div_ps(value, sum), _mm512_setzero_ps());
  const __mmask16 nan = _mm512_cmp_ps_mask(result, result, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(result, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000)));
}

// Writes dimensions [d, d + 16) of one column.
TROUPE_TILES_INLINE void store_output(const tensor_view& output, std::byte* row, std::int64_t d,
                                      std::int64_t dim, __m512 result) {
  const __mmask16 mask = first_of_16(dim - d);
  if (output.type == dtype::float32) {
    _mm512_mask_storeu_ps(reinterpret_cast<float*>(row) + d, mask, result);
  } else {
    _mm256_mask_storeu_epi16(reinterpret_cast<std::uint16_t*>(row) + d, mask,
                             (__m256i)_mm512_cvtneps_pbh(result));
  }
}

// The output row of one column and head.
[[nodiscard]] inline std::byte* output_row(const column_block& block, std::int64_t column) {
  const tensor_view& output = block.args.output;
  const std::int64_t at =
      block.row(column) * output.row_stride + block.head(column) * block.args.cache.head_dim;
  return output.data.address + at * static_cast<std::int64_t>(size_of(output.type));
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
