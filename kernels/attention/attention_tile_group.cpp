#include "kernels/attention/attention_tile_group.hpp"

#if TROUPE_TILES_POSSIBLE

namespace troupe::kernels::attention_detail::tiles {

TROUPE_TILES_TARGET void pack_queries(const column_block& block, const work_view& work) {
  const auto padded = static_cast<std::int64_t>(block.position.size());
  for (std::int64_t first = 0; first < padded; first += tile_rows) {
    const float* queries[tile_rows] = {};
    const std::int64_t count = std::clamp<std::int64_t>(block.item.columns - first, 0, tile_rows);
    for (std::int64_t c = 0; c < count; ++c) queries[c] = block.query(first + c);
    for (std::int64_t step = 0; step < work.depth_steps; ++step) {
      const std::int64_t rest = work.dim - step * tile_depth;
      const __mmask16 low_mask = first_of_16(rest);
      const __mmask16 high_mask = first_of_16(rest - 16);
      __m512i rows[16];
      for (std::int64_t c = 0; c < tile_rows; ++c) {
        if (c >= count) {
          rows[c] = _mm512_setzero_si512();
          continue;
        }
        const float* query = queries[c] + step * tile_depth;
        rows[c] = to_bfloat16(_mm512_maskz_loadu_ps(low_mask, query),
                              _mm512_maskz_loadu_ps(high_mask, query + 16));
      }
      transpose(rows);
      std::byte* tile = work.queries + (first / tile_rows * work.depth_steps + step) * tile_bytes;
      for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * tile_row_bytes, rows[i]);
    }
  }
}

namespace {

// What lies behind a row of K is another token: the last dimensions are copied, zeros behind them.
TROUPE_TILES_TARGET void copy_key_tails(const group_view& group) {
  const std::int64_t dim = group.work.dim;
  const std::int64_t done = dim / tile_depth * tile_depth;
  if (done == dim) return;
  const __mmask32 mask = first_of_32(dim - done);
  for (std::int64_t tile = 0; tile < token_tiles; ++tile) {
    if (group.keys[tile] == nullptr) continue;
    std::byte* to = group.work.key_tails + tile * tile_bytes;
    for (std::int64_t row = 0; row < tile_rows; ++row) {
      const std::uint16_t* from = group.keys[tile] + row * dim + done;
      _mm512_store_si512(to + row * tile_row_bytes, _mm512_maskz_loadu_epi16(mask, from));
    }
  }
}

// Scales the scores of 16 columns in place, sets those that a column does not see to -infinity.
// Returns each column's maximum.
TROUPE_TILES_TARGET __m512 mask_scores(const group_view& group, const column_tiles& columns,
                                       std::int64_t first, float* scores) {
  constexpr float log2_e = 1.44269504F;
  const __m512 scale = _mm512_set1_ps(group.block.args.scale * log2_e);
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  const __m512i last_seen = _mm512_loadu_si512(group.block.position.data() + first);
  const __m512i first_seen = _mm512_loadu_si512(group.block.first.data() + first);
  const auto position_of = [&](std::int64_t place) {
    return static_cast<std::int32_t>(group.tokens.first + place);
  };
  __m512 even_maximum = lowest;
  __m512 odd_maximum = lowest;
  for (std::int64_t place = columns.token_begin * tile_rows; place < columns.token_end * tile_rows;
       place += 2) {
    float* at = scores + place * tile_rows;
    __m512 even = _mm512_mul_ps(_mm512_load_ps(at), scale);
    __m512 odd = _mm512_mul_ps(_mm512_load_ps(at + 16), scale);
    if (group.partial) {
      const __m512i a = _mm512_set1_epi32(position_of(place));
      const __m512i b = _mm512_set1_epi32(position_of(place + 1));
      even = _mm512_mask_mov_ps(
          lowest,
          _mm512_mask_cmple_epi32_mask(_mm512_cmple_epi32_mask(a, last_seen), first_seen, a), even);
      odd = _mm512_mask_mov_ps(
          lowest,
          _mm512_mask_cmple_epi32_mask(_mm512_cmple_epi32_mask(b, last_seen), first_seen, b), odd);
    }
    _mm512_store_ps(at, even);
    _mm512_store_ps(at + 16, odd);
    even_maximum = _mm512_max_ps(even_maximum, even);
    odd_maximum = _mm512_max_ps(odd_maximum, odd);
  }
  return _mm512_max_ps(even_maximum, odd_maximum);
}

// Probabilities rounded to bfloat16 in pairs of tokens; returns the sums of the rounded values.
TROUPE_TILES_TARGET __m512 exponentials(group_view& group, const column_tiles& columns,
                                        const float* scores, __m512 base, std::byte* to) {
  alignas(64) static constexpr std::uint16_t interleave[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i order = _mm512_load_si512(interleave);
  const __m512i high_half = _mm512_set1_epi32(static_cast<std::int32_t>(0xFFFF0000U));
  const std::int64_t lines = group.work.dim / 32;
  __m512 even_sum = _mm512_setzero_ps();
  __m512 odd_sum = _mm512_setzero_ps();
  for (std::int64_t tile = 0; tile < token_tiles; ++tile) {
    std::byte* rows = to + tile * tile_bytes / 2;
    if (tile < columns.token_begin || tile >= columns.token_end) {
      std::memset(rows, 0, tile_bytes / 2);
      continue;
    }
    const float* from = scores + tile * tile_floats;
    for (std::int64_t pair = 0; pair < tile_rows / 2; ++pair, from += 32) {
      group.ahead.lines(lines);
      const __m512 even = power_of_two(_mm512_sub_ps(_mm512_load_ps(from), base));
      const __m512 odd = power_of_two(_mm512_sub_ps(_mm512_load_ps(from + 16), base));
      const __m512i both = _mm512_permutexvar_epi16(order, to_bfloat16(even, odd));
      _mm512_store_si512(rows + pair * tile_row_bytes, both);
      even_sum = _mm512_add_ps(even_sum, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)));
      odd_sum = _mm512_add_ps(odd_sum, _mm512_castsi512_ps(_mm512_and_si512(both, high_half)));
    }
  }
  return _mm512_add_ps(even_sum, odd_sum);
}

}  // namespace

group_view::group_view(const column_block& of, const token_range& range, const work_view& memory)
    : block(of), tokens(range), work(memory), ahead(of, range) {
  const auto* all_keys = reinterpret_cast<const std::uint16_t*>(of.args.cache.keys.address);
  const auto* all_values = reinterpret_cast<const std::uint16_t*>(of.args.cache.values.address);
  const auto last = static_cast<std::size_t>(of.item.columns - 1);
  for (std::int64_t tile = 0; tile < token_tiles; ++tile) {
    const std::int64_t index = range.first / kv_block_tokens + tile;
    if (index >= range.begin / kv_block_tokens && index * kv_block_tokens < range.end) {
      keys[tile] = all_keys + of.block_offset(index);
      values[tile] = all_values + of.block_offset(index);
    }
  }
  partial = of.first[last] > range.first || of.position[0] < range.first + group_tokens - 1;
  copy_key_tails(*this);
}

half_rows::half_rows(const group_view& group, std::int64_t half) {
  for (std::int64_t index = 0; index < tile_depth; ++index) {
    const std::int64_t place = half * tile_depth + index;
    const std::int64_t tile = place / tile_rows;
    const std::int64_t offset = place % tile_rows * group.work.dim;
    const std::int64_t position = group.tokens.first + place;
    const bool visible = position >= group.tokens.begin && position < group.tokens.end;
    // Any readable row stands in for one that nobody sees.
    const std::uint16_t* block =
        visible ? group.values[tile]
                : group.values[(group.tokens.begin - group.tokens.first) / tile_rows];
    row[index] = block + offset;
    seen[index] = visible ? 0xFFFFFFFFU : 0U;
  }
}

TROUPE_TILES_TARGET __m512 soften(group_view& group, const column_tiles& columns, std::int64_t tile,
                                  float* state) {
  const auto padded = static_cast<std::int64_t>(group.block.position.size());
  const std::int64_t first = columns.first + tile * tile_rows;
  auto* scores = reinterpret_cast<float*>(group.work.scores + tile * token_tiles * tile_bytes);
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  const __m512 before = _mm512_loadu_ps(state + first);
  const __m512 maximum = _mm512_max_ps(before, mask_scores(group, columns, first, scores));
  const __m512 base = finite_base(maximum);
  const __m512 sum = exponentials(group, columns, scores, base,
                                  group.work.probabilities + tile * halves * tile_bytes);
  // A column that has seen nothing yet has nothing to rescale.
  const __mmask16 started = _mm512_cmp_ps_mask(before, lowest, _CMP_NEQ_UQ);
  const __m512 factor =
      _mm512_mask_mov_ps(_mm512_set1_ps(1.0F), started, power_of_two(_mm512_sub_ps(before, base)));
  const __m512 sum_before = _mm512_loadu_ps(state + padded + first);
  _mm512_storeu_ps(state + first, maximum);
  _mm512_storeu_ps(state + padded + first, _mm512_add_ps(_mm512_mul_ps(sum_before, factor), sum));
  return factor;
}

TROUPE_TILES_TARGET merge_factors merge_sums(float* total, const float* part, std::int64_t first,
                                             std::int64_t columns_padded) {
  const __m512 before = _mm512_loadu_ps(total + first);
  const __m512 added = _mm512_loadu_ps(part + first);
  const __m512 maximum = _mm512_max_ps(before, added);
  const __m512 base = finite_base(maximum);
  const merge_factors factors{power_of_two(_mm512_sub_ps(before, base)),
                              power_of_two(_mm512_sub_ps(added, base))};
  _mm512_storeu_ps(total + first, maximum);
  float* sum = total + columns_padded + first;
  const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(sum), factors.total);
  _mm512_storeu_ps(
      sum, _mm512_fmadd_ps(_mm512_loadu_ps(part + columns_padded + first), factors.part, scaled));
  return factors;
}

}  // namespace troupe::kernels::attention_detail::tiles

#endif
