// Attention in tiles for up to 16 columns: decoding. `Products` multiplies them.
//
// The same products and sums as in attention_tile_wide.hpp, with the operands of the second
// multiplication exchanged: O += P V instead of O^T += V^T P^T. A tile multiplication computes the
// same bits either way, V needs no transposition (rows of tokens are interleaved, a shuffle a row),
// and its cost falls with the number of columns. Rows of O hold their dimensions in the order that
// interleaving leaves: of each 32 first 0-3, 8-11, 16-19, 24-27, then the others; write() puts them
// right.
#pragma once

#include "kernels/attention/attention_tile_group.hpp"

#if TROUPE_TILES_POSSIBLE

namespace troupe::kernels::attention_detail::tiles {

// V of the group with pairs of tokens interleaved: tiles of 32 tokens x 16 dimensions.
template <bool partial>
TROUPE_TILES_TARGET void interleave_values(group_view& group) {
  const work_view& work = group.work;
  for (std::int64_t half = 0; half < halves; ++half) {
    if (group.values[2 * half] == nullptr && group.values[2 * half + 1] == nullptr) continue;
    const half_rows rows(group, half);
    for (std::int64_t pair = 0; pair < 16; ++pair) {
      for (std::int64_t d = 0; d < work.dim; d += tile_depth) {
        const __mmask32 mask = first_of_32(work.dim - d);
        const __m512i even = value_row<partial>(group, rows, 2 * pair, half, d, mask);
        group.ahead.lines(2);
        const __m512i odd = value_row<partial>(group, rows, 2 * pair + 1, half, d, mask);
        std::byte* to = work.value_tile(half, d / tile_rows) + pair * tile_row_bytes;
        _mm512_store_si512(to, _mm512_unpacklo_epi16(even, odd));
        _mm512_store_si512(to + tile_bytes, _mm512_unpackhi_epi16(even, odd));
      }
    }
  }
}

// P [columns][32 tokens] of each half, behind P^T.
TROUPE_TILES_TARGET inline void transpose_probabilities(const work_view& work) {
  for (std::int64_t half = 0; half < halves; ++half) {
    const std::byte* from = work.probabilities + half * tile_bytes;
    __m512i rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(from + i * tile_row_bytes);
    transpose(rows);
    std::byte* to = work.probabilities + (halves + half) * tile_bytes;
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * tile_row_bytes, rows[i]);
  }
}

[[nodiscard]] inline std::int64_t tiles_of(std::int64_t dim) {
  return round_up(dim, tile_depth) / tile_rows;
}

TROUPE_TILES_TARGET inline void rescale_rows(const work_view& work, std::int64_t columns,
                                             __m512 factor, float* output) {
  if (_mm512_cmp_ps_mask(factor, _mm512_set1_ps(1.0F), _CMP_NEQ_UQ) == 0) return;
  alignas(64) float factors[tile_rows];
  _mm512_store_ps(factors, factor);
  for (std::int64_t tile = 0; tile < tiles_of(work.dim); ++tile) {
    for (std::int64_t c = 0; c < columns; ++c) {
      float* row = output + tile * tile_floats + c * tile_rows;
      _mm512_storeu_ps(row, _mm512_mul_ps(_mm512_loadu_ps(row), _mm512_set1_ps(factors[c])));
    }
  }
}

// Where dimension d of column c lies in O.
[[nodiscard]] inline std::int64_t output_place(std::int64_t d, std::int64_t c) {
  const std::int64_t in_pair = d % tile_depth;
  const std::int64_t tile = d / tile_depth * 2 + in_pair % 8 / 4;
  return tile * tile_floats + c * tile_rows + in_pair / 8 * 4 + in_pair % 4;
}

template <class Products>
TROUPE_TILES_TARGET void narrow_step(const column_block& block, const token_range& tokens,
                                     std::byte* memory, float* state) {
  const work_view work(memory, block.args.cache.head_dim);
  group_view group(block, tokens, work);
  group.partial ? interleave_values<true>(group) : interleave_values<false>(group);
  const column_tiles columns{.token_begin = (tokens.begin - tokens.first) / tile_rows,
                             .token_end = (tokens.end - tokens.first + tile_rows - 1) / tile_rows};
  for (std::int64_t token = columns.token_begin; token < columns.token_end; token += 2) {
    Products::score_few(group, token, columns.token_end);
  }
  float* output = state + 2 * static_cast<std::int64_t>(block.position.size());
  rescale_rows(work, block.item.columns, soften(group, columns, 0, state), output);
  transpose_probabilities(work);
  for (std::int64_t tile = 0; tile < tiles_of(work.dim); tile += 2) {
    Products::add_values_few(group, columns, tile, output);
  }
  if (group.special_tokens == 0) return;
  for_special_values(group, 0, 0, [&](std::int64_t d, std::int64_t column, float product) {
    output[output_place(d, column)] += product;
  });
}

TROUPE_TILES_TARGET inline void narrow_fold(const column_block& block, float* total,
                                            const float* part) {
  const auto padded = static_cast<std::int64_t>(block.position.size());
  const merge_factors factors = merge_sums(total, part, 0, padded);
  alignas(64) float of_total[tile_rows];
  alignas(64) float of_part[tile_rows];
  _mm512_store_ps(of_total, factors.total);
  _mm512_store_ps(of_part, factors.part);
  for (std::int64_t tile = 0; tile < tiles_of(block.args.cache.head_dim); ++tile) {
    for (std::int64_t c = 0; c < block.item.columns; ++c) {
      const std::int64_t at = 2 * padded + tile * tile_floats + c * tile_rows;
      const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(total + at), _mm512_set1_ps(of_total[c]));
      _mm512_storeu_ps(total + at, _mm512_fmadd_ps(_mm512_loadu_ps(part + at),
                                                   _mm512_set1_ps(of_part[c]), scaled));
    }
  }
}

TROUPE_TILES_TARGET inline void narrow_write(const column_block& block, const float* total) {
  const std::int64_t dim = block.args.cache.head_dim;
  const auto padded = static_cast<std::int64_t>(block.position.size());
  // Dimensions 0 .. 15 of 32 as lanes of the two tiles; the other 16 lie 8 lanes further.
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i order_behind = _mm512_add_epi32(order, _mm512_set1_epi32(8));
  for (std::int64_t c = 0; c < block.item.columns; ++c) {
    const __m512 sum = _mm512_set1_ps(total[padded + c]);
    std::byte* to = output_row(block, c);
    for (std::int64_t d = 0; d < dim; d += tile_depth) {
      const float* from = total + 2 * padded + d / tile_rows * tile_floats + c * tile_rows;
      const __m512 low = normalised(_mm512_loadu_ps(from), sum);
      const __m512 high = normalised(_mm512_loadu_ps(from + tile_floats), sum);
      store_output(block.args.output, to, d, dim, _mm512_permutex2var_ps(low, order, high));
      if (d + tile_rows >= dim) continue;
      store_output(block.args.output, to, d + tile_rows, dim,
                   _mm512_permutex2var_ps(low, order_behind, high));
    }
  }
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
