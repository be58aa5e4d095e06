// Attention in tiles over a bfloat16 cache, for many columns. `Products` multiplies them.
//
// Everything is transposed, lanes are columns (queries): S^T = K Q^T takes K from the cache as it
// lies (16 tokens x 32 dimensions a tile), the softmax then works down the rows without a
// horizontal step, its result is already the right-hand operand of O^T += V^T P^T, and O^T is
// rescaled by a vector. Only V is re-laid, once a group for all columns of the item. A tile
// multiplication treats every row and column by itself, so one query has the same bits alone as
// among 128; absent tokens are zeros in P and V.
//
// A value of V that is not finite must not meet the zero of a query that does not see it: where
// some column sees only a part of the group such values are taken out of V^T and added by hand.
#pragma once

#include "kernels/attention/attention_tile_group.hpp"

#if TROUPE_TILES_POSSIBLE

namespace troupe::kernels::attention_detail::tiles {

inline constexpr std::int64_t columns_step = 2 * tile_rows;  // two tiles of columns at a time
static_assert(column_pad % columns_step == 0);

// V^T of the group: tiles of 16 dimensions x 32 tokens.
template <bool partial>
TROUPE_TILES_TARGET void transpose_values(group_view& group) {
  const work_view& work = group.work;
  for (std::int64_t half = 0; half < halves; ++half) {
    if (group.values[2 * half] == nullptr && group.values[2 * half + 1] == nullptr) continue;
    const half_rows rows(group, half);
    for (std::int64_t d = 0; d < work.dim; d += 2 * tile_rows) {
      const __mmask32 mask = first_of_32(work.dim - d);
      __m512i low[16];
      __m512i high[16];
      for (std::int64_t pair = 0; pair < 16; ++pair) {
        const __m512i even = value_row<partial>(group, rows, 2 * pair, half, d, mask);
        group.ahead.lines(2);
        const __m512i odd = value_row<partial>(group, rows, 2 * pair + 1, half, d, mask);
        low[pair] = _mm512_unpacklo_epi16(even, odd);
        high[pair] = _mm512_unpackhi_epi16(even, odd);
      }
      transpose(low);
      transpose(high);
      std::byte* to = work.value_tile(half, d / tile_rows);
      for (std::int64_t i = 0; i < 16; ++i) {
        // Unpacking took dimensions 0-3, 8-11, 16-19, 24-27 into `low`, those between into `high`.
        std::byte* row = to + (i / 4 * 8 + i % 4) * tile_row_bytes;
        _mm512_store_si512(row, low[i]);
        _mm512_store_si512(row + 4 * tile_row_bytes, high[i]);
      }
    }
  }
}

// Rescales the outputs of 16 columns where a maximum grew.
TROUPE_TILES_TARGET inline void rescale_columns(const work_view& work, __m512 factor,
                                                float* output) {
  if (_mm512_cmp_ps_mask(factor, _mm512_set1_ps(1.0F), _CMP_NEQ_UQ) == 0) return;
  for (std::int64_t d = 0; d < work.output_tiles * tile_rows; ++d) {
    float* row = output + d * tile_rows;
    _mm512_storeu_ps(row, _mm512_mul_ps(_mm512_loadu_ps(row), factor));
  }
}

inline void add_special_values(const group_view& group, const column_tiles& columns,
                               float* output) {
  for (std::int64_t tile = 0; tile < columns.tiles; ++tile) {
    float* to = output + tile * group.work.output_tiles * tile_floats;
    for_special_values(group, tile, columns.first + tile * tile_rows,
                       [&](std::int64_t d, std::int64_t column, float product) {
                         to[d * tile_rows + column] += product;
                       });
  }
}

template <class Products>
TROUPE_TILES_TARGET void wide_step(const column_block& block, const token_range& tokens,
                                   std::byte* memory, float* state) {
  const work_view work(memory, block.args.cache.head_dim);
  group_view group(block, tokens, work);
  group.partial ? transpose_values<true>(group) : transpose_values<false>(group);
  const auto padded = static_cast<std::int64_t>(block.position.size());
  for (std::int64_t first = 0; first < block.item.columns; first += columns_step) {
    const std::int64_t count = std::min(columns_step, block.item.columns - first);
    const auto last = static_cast<std::size_t>(first + count - 1);
    const std::int64_t begin =
        std::max<std::int64_t>(block.first[static_cast<std::size_t>(first)], tokens.begin);
    const std::int64_t end = std::min<std::int64_t>(block.position[last] + 1, tokens.end);
    if (begin >= end) continue;
    const column_tiles columns{.first = first,
                               .tiles = count > tile_rows ? 2 : 1,
                               .token_begin = (begin - tokens.first) / tile_rows,
                               .token_end = (end - tokens.first + tile_rows - 1) / tile_rows};
    for (std::int64_t token = columns.token_begin; token < columns.token_end; token += 2) {
      Products::score(group, columns, token);
    }
    float* output = state + 2 * padded + first * work.output_tiles * tile_rows;
    for (std::int64_t tile = 0; tile < columns.tiles; ++tile) {
      rescale_columns(work, soften(group, columns, tile, state),
                      output + tile * work.output_tiles * tile_floats);
    }
    for (std::int64_t tile = 0; tile < work.output_tiles; tile += 2) {
      Products::add_values(group, columns, tile, output);
    }
    if (group.special_tokens != 0) add_special_values(group, columns, output);
  }
}

TROUPE_TILES_TARGET inline void wide_fold(const column_block& block, float* total,
                                          const float* part) {
  const auto padded = static_cast<std::int64_t>(block.position.size());
  const std::int64_t rows = round_up(block.args.cache.head_dim, tile_rows);
  for (std::int64_t first = 0; first < block.item.columns; first += tile_rows) {
    const merge_factors factors = merge_sums(total, part, first, padded);
    for (std::int64_t d = 0; d < rows; ++d) {
      const std::int64_t at = 2 * padded + first * rows + d * tile_rows;
      const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(total + at), factors.total);
      _mm512_storeu_ps(total + at,
                       _mm512_fmadd_ps(_mm512_loadu_ps(part + at), factors.part, scaled));
    }
  }
}

TROUPE_TILES_TARGET inline void wide_write(const column_block& block, const float* total) {
  const std::int64_t dim = block.args.cache.head_dim;
  const std::int64_t rows = round_up(dim, tile_rows);
  const auto padded = static_cast<std::int64_t>(block.position.size());
  for (std::int64_t first = 0; first < block.item.columns; first += tile_rows) {
    const __m512 sum = _mm512_loadu_ps(total + padded + first);
    const std::int64_t count = std::min(tile_rows, block.item.columns - first);
    std::byte* to[tile_rows] = {};
    for (std::int64_t c = 0; c < count; ++c) to[c] = output_row(block, first + c);
    for (std::int64_t d = 0; d < dim; d += tile_rows) {
      const float* from = total + 2 * padded + first * rows + d * tile_rows;
      __m512i columns[16];
      for (int i = 0; i < 16; ++i) {
        columns[i] = _mm512_castps_si512(normalised(_mm512_loadu_ps(from + i * 16), sum));
      }
      transpose(columns);
      for (std::int64_t c = 0; c < count; ++c) {
        store_output(block.args.output, to[c], d, dim, _mm512_castsi512_ps(columns[c]));
      }
    }
  }
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
