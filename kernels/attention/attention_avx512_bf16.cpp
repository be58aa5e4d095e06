// The products of attention's tiles by VDPBF16PS: a row of a tile of sums is a register, and each
// element one chain over the pairs of inputs, so neither the rows nor the tiles beside it matter.
#include "kernels/attention/attention_tile_kernel.hpp"

namespace troupe::kernels::attention_detail {

#if TROUPE_TILES_POSSIBLE
namespace tiles {
namespace {

// Some rows of one or two tiles of sums that share their left operand.
template <int rows, int tiles>
struct sums {
  __m512 of[rows][tiles];

  TROUPE_TILES_INLINE void clear() {
#pragma GCC unroll 16
    for (auto& row : of) {
#pragma GCC unroll 2
      for (__m512& sum : row) sum = _mm512_setzero_ps();
    }
  }
  // `beside`: floats from a row of the first tile to that of the second.
  TROUPE_TILES_INLINE void load(const float* from, std::int64_t beside) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
      for (int t = 0; t < tiles; ++t) {
        of[r][t] = _mm512_loadu_ps(from + r * tile_rows + t * beside);
      }
    }
  }
  TROUPE_TILES_INLINE void store(float* to, std::int64_t beside) const {
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
      for (int t = 0; t < tiles; ++t) {
        _mm512_storeu_ps(to + r * tile_rows + t * beside, of[r][t]);
      }
    }
  }
  // sums += rows of pairs * a tile of pairs each, 16 of them deep. `beside`: bytes to the second.
  TROUPE_TILES_INLINE void multiply(const std::byte* left, std::int64_t row_bytes,
                                    const std::byte* right, std::int64_t beside) {
    for (std::int64_t pair = 0; pair < tile_depth / 2; ++pair) {
      __m512i with[tiles];
#pragma GCC unroll 2
      for (int t = 0; t < tiles; ++t) {
        with[t] = _mm512_load_si512(right + pair * tile_row_bytes + t * beside);
      }
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        int both = 0;
        std::memcpy(&both, left + r * row_bytes + pair * 4, sizeof(both));
        const auto element = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 2
        for (int t = 0; t < tiles; ++t) {
          of[r][t] = _mm512_dpbf16_ps(of[r][t], element, (__m512bh)with[t]);
        }
      }
    }
  }
};

// S^T of some tokens of a tile from row `row` on, by one or two tiles of columns.
template <int rows, int tiles>
TROUPE_TILES_TARGET void score_rows(group_view& group, std::int64_t first_column,
                                    std::int64_t token, std::int64_t row) {
  const work_view& work = group.work;
  const std::int64_t column_bytes = work.depth_steps * tile_bytes;
  const std::byte* queries = work.queries + first_column / tile_rows * column_bytes;
  sums<rows, tiles> scores;
  scores.clear();
  for (std::int64_t step = 0; step < work.depth_steps; ++step) {
    const key_tile keys = key_tile_of(group, token, step);
    group.ahead.lines(rows / 2);
    scores.multiply(static_cast<const std::byte*>(keys.address) + row * keys.stride, keys.stride,
                    queries + step * tile_bytes, column_bytes);
  }
  scores.store(reinterpret_cast<float*>(work.scores + token * tile_bytes) + row * tile_rows,
               token_tiles * tile_floats);
}

// S^T of one tile of tokens by the first few columns, whose lanes would be nearly empty: K is
// transposed, so that lanes are tokens, and the sums are transposed back.
template <int columns>
TROUPE_TILES_TARGET void score_tokens(group_view& group, std::int64_t token) {
  const work_view& work = group.work;
  __m512 scores[columns];
  for (__m512& sum : scores) sum = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < work.depth_steps; ++step) {
    const key_tile keys = key_tile_of(group, token, step);
    group.ahead.lines(8);
    __m512i pairs[tile_rows];
    for (std::int64_t r = 0; r < tile_rows; ++r) {
      pairs[r] = _mm512_loadu_si512(static_cast<const std::byte*>(keys.address) + r * keys.stride);
    }
    transpose(pairs);
    const std::byte* queries = work.queries + step * tile_bytes;
#pragma GCC unroll 16
    for (std::int64_t pair = 0; pair < tile_rows; ++pair) {
#pragma GCC unroll 8
      for (int c = 0; c < columns; ++c) {
        int both = 0;
        std::memcpy(&both, queries + pair * tile_row_bytes + c * 4, sizeof(both));
        scores[c] =
            _mm512_dpbf16_ps(scores[c], (__m512bh)pairs[pair], (__m512bh)_mm512_set1_epi32(both));
      }
    }
  }
  __m512i rows[tile_rows];
  for (std::int64_t c = 0; c < tile_rows; ++c) {
    rows[c] = c < columns ? _mm512_castps_si512(scores[c]) : _mm512_setzero_si512();
  }
  transpose(rows);
  std::byte* to = work.scores + token * tile_bytes;
  for (std::int64_t r = 0; r < tile_rows; ++r) {
    _mm512_store_si512(to + r * tile_row_bytes, rows[r]);
  }
}

// O^T += V^T P^T of some dimensions of a tile from row `row` on.
template <int rows, int tiles>
TROUPE_TILES_TARGET void add_value_rows(const group_view& group, const column_tiles& columns,
                                        std::int64_t tile, std::int64_t row, float* output) {
  const work_view& work = group.work;
  float* to = output + tile * tile_floats + row * tile_rows;
  const std::int64_t beside = work.output_tiles * tile_floats;
  sums<rows, tiles> outputs;
  outputs.load(to, beside);
  for (std::int64_t half = columns.token_begin / 2; half < (columns.token_end + 1) / 2; ++half) {
    outputs.multiply(work.value_tile(half, tile) + row * tile_row_bytes, tile_row_bytes,
                     work.probabilities + half * tile_bytes, halves * tile_bytes);
  }
  outputs.store(to, beside);
}

// O += P V of some columns from `row` on, two tiles of dimensions.
template <int rows>
TROUPE_TILES_TARGET void add_values_of(const group_view& group, const column_tiles& columns,
                                       std::int64_t tile, std::int64_t row, float* output) {
  const work_view& work = group.work;
  float* to = output + tile * tile_floats + row * tile_rows;
  sums<rows, 2> outputs;
  outputs.load(to, tile_floats);
  for (std::int64_t half = columns.token_begin / 2; half < (columns.token_end + 1) / 2; ++half) {
    outputs.multiply(work.probabilities + (halves + half) * tile_bytes + row * tile_row_bytes,
                     tile_row_bytes, work.value_tile(half, tile), tile_bytes);
  }
  outputs.store(to, tile_floats);
}

struct vector_products {
  static void begin(const column_block& block, std::byte* work) {
    pack_queries(block, work_view(work, block.args.cache.head_dim));
  }
  static constexpr void (*end)() = nullptr;

  // Of up to two tiles of tokens.
  static void score(group_view& group, const column_tiles& columns, std::int64_t token) {
    const std::int64_t end = std::min(token + 2, columns.token_end);
    for (std::int64_t at = token; at < end; ++at) {
      if (columns.tiles == 2) {
        score_rows<8, 2>(group, columns.first, at, 0);
        score_rows<8, 2>(group, columns.first, at, 8);
      } else {
        score_rows<16, 1>(group, columns.first, at, 0);
      }
    }
  }
  // Of up to two tiles of dimensions.
  static void add_values(group_view& group, const column_tiles& columns, std::int64_t tile,
                         float* output) {
    const std::int64_t end = std::min(tile + 2, group.work.output_tiles);
    for (std::int64_t at = tile; at < end; ++at) {
      if (columns.tiles == 2) {
        add_value_rows<8, 2>(group, columns, at, 0, output);
        add_value_rows<8, 2>(group, columns, at, 8, output);
      } else {
        add_value_rows<16, 1>(group, columns, at, 0, output);
      }
    }
  }
  static void score_few(group_view& group, std::int64_t token, std::int64_t token_end) {
    const std::int64_t end = std::min(token + 2, token_end);
    const std::int64_t count = group.block.item.columns;
    for (std::int64_t at = token; at < end; ++at) {
      if (count == 1) {
        score_tokens<1>(group, at);
      } else if (count == 2) {
        score_tokens<2>(group, at);
      } else if (count <= 4) {
        score_tokens<4>(group, at);
      } else if (count <= 8) {
        score_tokens<8>(group, at);
      } else {
        score_rows<16, 1>(group, 0, at, 0);
      }
    }
  }
  static void add_values_few(group_view& group, const column_tiles& columns, std::int64_t tile,
                             float* output) {
    group.ahead.lines(16);
    const std::int64_t count = group.block.item.columns;
    std::int64_t row = 0;
    for (; row + 8 <= count; row += 8) add_values_of<8>(group, columns, tile, row, output);
    for (; row + 2 <= count; row += 2) add_values_of<2>(group, columns, tile, row, output);
    if (row < count) add_values_of<1>(group, columns, tile, row, output);
  }
};

}  // namespace
}  // namespace tiles

const block_kernel* avx512_bf16_kernel(std::int64_t columns) {
  return tiles::kernel_for<tiles::vector_products>(columns);
}

#else

const block_kernel* avx512_bf16_kernel(std::int64_t /*columns*/) { return nullptr; }

#endif

}  // namespace troupe::kernels::attention_detail
