// Attention in float32 multiply-adds, for AVX2 and AVX-512.
//
// A score is one chain of multiply-adds over the dimensions from zero, an output element one chain
// over the positions, so neither the number of lanes in use nor the tile of queries matters. K of a
// group is transposed once for all columns (lanes are positions); V is read from the cache itself
// (lanes are dimensions). Work: K^T [head_dim][64], then probabilities [4][64].
#include <algorithm>
#include <array>
#include <limits>

#include "kernels/attention/attention_prefetch.hpp"
#include "kernels/attention/attention_work.hpp"

#include "kernels/simd_paths.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/simd_inl.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::attention_detail::HWY_NAMESPACE {
namespace {

using namespace troupe::kernels::HWY_NAMESPACE;

constexpr std::int64_t vectors = group_tokens / width;  // of one query's scores
constexpr int query_tile = width == 16 ? 4 : 2;         // as many accumulators as registers allow
constexpr float infinity = std::numeric_limits<float>::infinity();

// 2^x for x <= 0; exactly 1 at 0, exactly 0 below -125, NaN of NaN. The polynomial is the minimax
// fit to 2^f on [-1/2, 1/2] with constant term 1: relative error 2e-8 in exact arithmetic.
HWY_INLINE lanes power_of_two(lanes x) {
  const hn::RebindToSigned<lanes_tag> integers;
  const auto tiny = hn::Lt(x, hn::Set(tag, -125.0F));
  x = hn::Max(hn::Set(tag, -126.0F), x);  // in this order NaN stays
  const lanes whole = hn::Round(x);
  const lanes f = hn::Sub(x, whole);
  lanes p = hn::Set(tag, 0x1.41fbbcp-13F);
  p = hn::MulAdd(p, f, hn::Set(tag, 0x1.5f3e54p-10F));
  p = hn::MulAdd(p, f, hn::Set(tag, 0x1.3b2d4cp-7F));
  p = hn::MulAdd(p, f, hn::Set(tag, 0x1.c6aee8p-5F));
  p = hn::MulAdd(p, f, hn::Set(tag, 0x1.ebfbdcp-3F));
  p = hn::MulAdd(p, f, hn::Set(tag, 0x1.62e430p-1F));
  p = hn::MulAdd(p, f, hn::Set(tag, 1.0F));
  const auto exponent = hn::Add(hn::ConvertTo(integers, whole), hn::Set(integers, 127));
  const lanes scale = hn::BitCast(tag, hn::ShiftLeft<23>(exponent));
  return hn::IfThenElse(tiny, hn::Zero(tag), hn::Mul(p, scale));
}

template <class Tag>
HWY_INLINE hn::Vec<Tag> load_all(Tag d, const float* from) {
  return hn::LoadU(d, from);
}
template <class Tag>
HWY_INLINE hn::Vec<Tag> load_all(Tag d, const std::uint16_t* from) {
  const auto half = hn::LoadU(hn::Rebind<std::uint16_t, Tag>(), from);
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<Tag>(), half)));
}
// `count` elements, zeros behind them; reads nothing further.
template <class Tag, class T>
HWY_INLINE hn::Vec<Tag> load_some(Tag d, const T* from, std::int64_t count) {
  std::array<T, static_cast<std::size_t>(width)> elements{};
  std::copy_n(from, count, elements.data());
  return load_all(d, elements.data());
}

// Dimensions [d, d + 4) of `width` consecutive tokens as four vectors over the tokens.
template <bool all, class T>
HWY_INLINE void transpose_four(const T* tokens, std::int64_t head_dim, std::int64_t count,
                               float* HWY_RESTRICT to) {
  const hn::CappedTag<float, 4> quarter;
  const hn::Half<lanes_tag> half;
  const hn::RepartitionToWide<lanes_tag> pairs;
  lanes row[4];
  for (std::int64_t i = 0; i < 4; ++i) {
    const auto load = [&](std::int64_t token) {
      const T* from = tokens + token * head_dim;
      if constexpr (all) return load_all(quarter, from);
      return load_some(quarter, from, count);
    };
    if constexpr (width == 16) {
      row[i] = hn::Combine(tag, hn::Combine(half, load(12 + i), load(8 + i)),
                           hn::Combine(half, load(4 + i), load(i)));
    } else {
      row[i] = hn::Combine(tag, load(4 + i), load(i));
    }
  }
  const auto a = hn::BitCast(pairs, hn::InterleaveLower(tag, row[0], row[1]));
  const auto b = hn::BitCast(pairs, hn::InterleaveLower(tag, row[2], row[3]));
  const auto c = hn::BitCast(pairs, hn::InterleaveUpper(tag, row[0], row[1]));
  const auto e = hn::BitCast(pairs, hn::InterleaveUpper(tag, row[2], row[3]));
  const lanes out[4] = {hn::BitCast(tag, hn::InterleaveLower(pairs, a, b)),
                        hn::BitCast(tag, hn::InterleaveUpper(pairs, a, b)),
                        hn::BitCast(tag, hn::InterleaveLower(pairs, c, e)),
                        hn::BitCast(tag, hn::InterleaveUpper(pairs, c, e))};
  for (std::int64_t i = 0; i < count; ++i) hn::Store(out[i], tag, to + i * group_tokens);
}

// K^T of the group: [head_dim][group_tokens]. Blocks that no column sees become zeros, unread.
template <class T>
void transpose_keys(const column_block& block, const token_range& tokens, prefetcher& ahead,
                    float* HWY_RESTRICT to) {
  const std::int64_t dim = block.args.cache.head_dim;
  const auto* keys = reinterpret_cast<const T*>(block.args.cache.keys.address);
  constexpr auto lines = static_cast<std::int64_t>(sizeof(T)) * width / 16;  // half of the group's
  for (std::int64_t place = 0; place < group_tokens; place += width) {
    const std::int64_t position = tokens.first + place;
    const std::int64_t index = position / kv_block_tokens;
    if (index < tokens.begin / kv_block_tokens || index > (tokens.end - 1) / kv_block_tokens) {
      for (std::int64_t d = 0; d < dim; ++d) {
        hn::Store(hn::Zero(tag), tag, to + d * group_tokens + place);
      }
      continue;
    }
    const T* from = keys + block.block_offset(index) + position % kv_block_tokens * dim;
    std::int64_t d = 0;
    for (; d + 4 <= dim; d += 4) {
      ahead.lines(lines);
      transpose_four<true>(from + d, dim, 4, to + d * group_tokens + place);
    }
    if (d < dim) transpose_four<false>(from + d, dim, dim - d, to + d * group_tokens + place);
  }
}

// Raw scores of `Queries` columns with the whole group: [Queries][group_tokens].
template <int Queries>
void score(const float* const* queries, const float* HWY_RESTRICT keys, std::int64_t dim,
           prefetcher& ahead, float* HWY_RESTRICT to) {
  constexpr std::int64_t step = 4;  // vectors at a time
  for (std::int64_t v = 0; v < vectors; v += step) {
    lanes sum[Queries][step];
    for (auto& row : sum) {
      for (lanes& element : row) element = hn::Zero(tag);
    }
    const float* HWY_RESTRICT from = keys + v * width;
    for (std::int64_t d = 0; d < dim; ++d, from += group_tokens) {
      if (d % 4 == 0) ahead.lines(8);
      lanes key[step];
      for (std::int64_t i = 0; i < step; ++i) key[i] = hn::Load(tag, from + i * width);
      for (int q = 0; q < Queries; ++q) {
        const lanes element = hn::Set(tag, queries[q][d]);
        for (std::int64_t i = 0; i < step; ++i) {
          sum[q][i] = hn::MulAdd(element, key[i], sum[q][i]);
        }
      }
    }
    for (int q = 0; q < Queries; ++q) {
      for (std::int64_t i = 0; i < step; ++i) {
        hn::Store(sum[q][i], tag, to + q * group_tokens + (v + i) * width);
      }
    }
  }
}

// One column's view of the group: places [begin, end) of it are seen.
struct seen_range {
  std::int64_t begin = 0;
  std::int64_t end = group_tokens;
};

// Turns raw scores into probabilities in place; updates maximum and sum. Returns the factor that
// the output so far must be multiplied with.
float soften(float* HWY_RESTRICT scores, float scale, seen_range seen, float& maximum, float& sum) {
  const hn::RebindToSigned<lanes_tag> integers;
  const auto begin = hn::Set(integers, static_cast<std::int32_t>(seen.begin));
  const auto end = hn::Set(integers, static_cast<std::int32_t>(seen.end));
  const lanes factor = hn::Set(tag, scale);
  lanes values[vectors];
  lanes highest = hn::Set(tag, -infinity);
  for (std::int64_t v = 0; v < vectors; ++v) {
    const auto place = hn::Iota(integers, static_cast<std::int32_t>(v * width));
    const auto visible = hn::AndNot(hn::VecFromMask(integers, hn::Lt(place, begin)),
                                    hn::VecFromMask(integers, hn::Lt(place, end)));
    values[v] =
        hn::IfThenElse(hn::RebindMask(tag, hn::MaskFromVec(visible)),
                       hn::Mul(hn::Load(tag, scores + v * width), factor), hn::Set(tag, -infinity));
    highest = hn::Max(highest, values[v]);
  }
  const float before = maximum;
  maximum = std::max(before, hn::GetLane(hn::MaxOfLanes(tag, highest)));
  // All scores are -infinity: any finite number in its place gives zeros.
  const lanes base = hn::Set(tag, maximum == -infinity ? 0.0F : maximum);
  lanes total = hn::Zero(tag);
  for (std::int64_t v = 0; v < vectors; ++v) {
    const lanes p = power_of_two(hn::Sub(values[v], base));
    hn::Store(p, tag, scores + v * width);
    total = hn::Add(total, p);
  }
  const float correction = hn::GetLane(power_of_two(hn::Sub(hn::Set(tag, before), base)));
  const float scaled = sum * correction;
  sum = scaled + hn::GetLane(hn::SumOfLanes(tag, total));
  return correction;
}

// Adds probabilities x V to `Vectors` vectors of dimensions of `Queries` columns, position by
// position. The last vector of a row may be short.
template <int Queries, int Vectors, bool whole, class T>
HWY_INLINE void add_values(const column_block& block, const token_range& tokens, seen_range seen,
                           const float* probabilities, std::int64_t d, float* output) {
  const std::int64_t dim = block.args.cache.head_dim;
  const std::int64_t stride = round_up(dim, width);
  const auto* values = reinterpret_cast<const T*>(block.args.cache.values.address);
  lanes sum[Queries][Vectors];
  for (int q = 0; q < Queries; ++q) {
    for (int v = 0; v < Vectors; ++v)
      sum[q][v] = hn::Load(tag, output + q * stride + d + v * width);
  }
  for (std::int64_t place = seen.begin; place < seen.end;) {
    const std::int64_t position = tokens.first + place;
    const std::int64_t stop = std::min(seen.end, (place / kv_block_tokens + 1) * kv_block_tokens);
    const T* HWY_RESTRICT from = values + block.block_offset(position / kv_block_tokens) +
                                 position % kv_block_tokens * dim + d;
    for (; place < stop; ++place, from += dim) {
      lanes value[Vectors];
      for (int v = 0; v < Vectors; ++v) {
        if constexpr (whole) {
          value[v] = load_all(tag, from + v * width);
        } else {
          value[v] = load_some(tag, from + v * width, std::min(width, dim - d - v * width));
        }
      }
      for (int q = 0; q < Queries; ++q) {
        const lanes p = hn::Set(tag, probabilities[q * group_tokens + place]);
        for (int v = 0; v < Vectors; ++v) sum[q][v] = hn::MulAdd(p, value[v], sum[q][v]);
      }
    }
  }
  for (int q = 0; q < Queries; ++q) {
    for (int v = 0; v < Vectors; ++v)
      hn::Store(sum[q][v], tag, output + q * stride + d + v * width);
  }
}

template <int Queries, class T>
void attend(const column_block& block, const token_range& tokens, seen_range seen,
            std::int64_t column, prefetcher& ahead, std::byte* work, float* state) {
  const std::int64_t dim = block.args.cache.head_dim;
  const std::int64_t stride = round_up(dim, width);
  const auto padded = static_cast<std::int64_t>(block.position.size());
  const auto* keys = reinterpret_cast<const float*>(work);
  float* scores = reinterpret_cast<float*>(work) + dim * group_tokens;
  float* output = state + 2 * padded + column * stride;
  const float* queries[Queries];
  for (int q = 0; q < Queries; ++q) queries[q] = block.query(column + q);
  score<Queries>(queries, keys, dim, ahead, scores);
  constexpr float log2_e = 1.44269504F;
  for (int q = 0; q < Queries; ++q) {
    const float correction = soften(scores + q * group_tokens, block.args.scale * log2_e, seen,
                                    state[column + q], state[padded + column + q]);
    if (correction == 1.0F) continue;
    const lanes factor = hn::Set(tag, correction);
    for (float* at = output + q * stride; at < output + (q + 1) * stride; at += width) {
      hn::Store(hn::Mul(hn::Load(tag, at), factor), tag, at);
    }
  }
  constexpr int wide = Queries == 1 ? 8 : query_tile == 4 && Queries == 2 ? 8 : 4;
  std::int64_t d = 0;
  for (; d + wide * width <= dim; d += wide * width) {
    add_values<Queries, wide, true, T>(block, tokens, seen, scores, d, output);
  }
  for (; d + width <= dim; d += width) {
    add_values<Queries, 1, true, T>(block, tokens, seen, scores, d, output);
  }
  if (d < dim) add_values<Queries, 1, false, T>(block, tokens, seen, scores, d, output);
}

seen_range seen_by(const column_block& block, const token_range& tokens, std::int64_t column) {
  const auto index = static_cast<std::size_t>(column);
  return {.begin = std::max<std::int64_t>(block.first[index] - tokens.first, 0),
          .end = std::min<std::int64_t>(block.position[index] - tokens.first + 1, group_tokens)};
}

template <class T>
void step(const column_block& block, const token_range& tokens, std::byte* work, float* state) {
  prefetcher ahead(block, tokens);
  transpose_keys<T>(block, tokens, ahead, reinterpret_cast<float*>(work));
  const std::int64_t columns = block.item.columns;
  for (std::int64_t column = 0; column < columns;) {
    // First and last seen are monotonic in the column: the outer two bound those between.
    const std::int64_t count = std::min<std::int64_t>(query_tile, columns - column);
    const std::int64_t tile = count == 3 ? 2 : count;
    const seen_range a = seen_by(block, tokens, column);
    const seen_range b = seen_by(block, tokens, column + tile - 1);
    const bool same = a.begin == b.begin && a.end == b.end;
    if (!same || tile == 1) {
      if (a.begin < a.end) attend<1, T>(block, tokens, a, column, ahead, work, state);
      column += 1;
    } else {
      if (a.begin < a.end) {
        if (tile == 2) attend<2, T>(block, tokens, a, column, ahead, work, state);
        if (tile == 4) attend<4, T>(block, tokens, a, column, ahead, work, state);
      }
      column += tile;
    }
  }
}

void fold(const column_block& block, float* total, const float* part) {
  const std::int64_t stride = round_up(block.args.cache.head_dim, width);
  const auto padded = static_cast<std::int64_t>(block.position.size());
  for (std::int64_t column = 0; column < block.item.columns; ++column) {
    const float before = total[column];
    const float maximum = std::max(before, part[column]);
    const lanes base = hn::Set(tag, maximum == -infinity ? 0.0F : maximum);
    const lanes old_factor = power_of_two(hn::Sub(hn::Set(tag, before), base));
    const lanes new_factor = power_of_two(hn::Sub(hn::Set(tag, part[column]), base));
    total[column] = maximum;
    const lanes sum = hn::Mul(hn::Set(tag, total[padded + column]), old_factor);
    total[padded + column] =
        hn::GetLane(hn::MulAdd(hn::Set(tag, part[padded + column]), new_factor, sum));
    const std::int64_t begin = 2 * padded + column * stride;
    for (std::int64_t at = begin; at < begin + stride; at += width) {
      const lanes scaled = hn::Mul(hn::Load(tag, total + at), old_factor);
      hn::Store(hn::MulAdd(hn::Load(tag, part + at), new_factor, scaled), tag, total + at);
    }
  }
}

// Adding +0 leaves one kind of zero.
HWY_INLINE lanes normalised(lanes value, lanes sum) {
  const lanes result = hn::Add(hn::Div(value, sum), hn::Zero(tag));
  const hn::RebindToUnsigned<lanes_tag> bits;
  return hn::IfThenElse(hn::IsNaN(result), hn::BitCast(tag, hn::Set(bits, 0x7FC00000U)), result);
}

void write(const column_block& block, const float* total) {
  const std::int64_t dim = block.args.cache.head_dim;
  const std::int64_t stride = round_up(dim, width);
  const auto padded = static_cast<std::int64_t>(block.position.size());
  const tensor_view& output = block.args.output;
  for (std::int64_t column = 0; column < block.item.columns; ++column) {
    const lanes sum = hn::Set(tag, total[padded + column]);
    const float* from = total + 2 * padded + column * stride;
    const std::int64_t offset = block.head(column) * dim;
    for (std::int64_t d = 0; d < dim; d += width) {
      const std::int64_t count = std::min(width, dim - d);
      const lanes result = normalised(hn::Load(tag, from + d), sum);
      const auto put = [&](auto* row) {
        if (count == width) {
          store_all(result, row + offset + d);
        } else {
          store_some(result, row + offset + d, count);
        }
      };
      if (output.type == dtype::float32) {
        put(output.row<float>(block.row(column)));
      } else {
        put(output.row<std::uint16_t>(block.row(column)));
      }
    }
  }
}

std::int64_t output_floats(std::int64_t columns_padded, std::int64_t head_dim) {
  return columns_padded * round_up(head_dim, width);
}

std::size_t work_bytes(std::int64_t /*columns_padded*/, std::int64_t head_dim) {
  return static_cast<std::size_t>((head_dim + query_tile) * group_tokens) * sizeof(float);
}

void begin(const column_block& /*block*/, std::byte* /*work*/) {}

}  // namespace

template <class T>
const block_kernel* kernel() {
  static constexpr block_kernel functions{output_floats, work_bytes, begin,  step<T>,
                                          fold,          write,      nullptr};
  return &functions;
}
template const block_kernel* kernel<float>();
template const block_kernel* kernel<std::uint16_t>();

}  // namespace troupe::kernels::attention_detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels::attention_detail {

const block_kernel* float32_kernel(instruction_path path, dtype cache) {
  if (cache == dtype::float32) return TROUPE_SIMD_CALL(path, kernel<float>);
  return TROUPE_SIMD_CALL(path, kernel<std::uint16_t>);
}

}  // namespace troupe::kernels::attention_detail
#endif
