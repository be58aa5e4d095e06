// One task is one run of one row. First pass: the maximum of each block of tokens, and whether all
// is finite. The block maxima then tell which blocks can hold a candidate or the noisy winner at
// all, so that most of the vocabulary is never looked at again for these; the sums of exp read
// every logit once more, from the cache.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/simd_paths.hpp"
#include "kernels/vocabulary/top_candidates.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vocabulary/vocabulary_cpu.cpp"
#include <hwy/foreach_target.h>  // NOLINT: re-includes this file for each target
#include <hwy/highway.h>

#include "kernels/vocabulary/gumbel_inl.hpp"

#ifndef TROUPE_KERNELS_VOCABULARY_RUN
#define TROUPE_KERNELS_VOCABULARY_RUN
namespace troupe::kernels {
namespace {

struct vocabulary_run {
  const float* logits = nullptr;
  std::int64_t count = 0;
  std::int64_t first_id = 0;
  const sampling_row* row = nullptr;
  std::span<token_candidate> top;
};

// 1024 blocks cover a run of 65536 tokens by 64; a longer run has longer blocks.
constexpr std::int64_t blocks_max = 1024;
constexpr std::int64_t block_unit = 64;

struct block_maxima {
  std::int64_t block = block_unit;  // tokens
  std::int64_t count = 0;           // blocks
  float maximum = -std::numeric_limits<float>::infinity();
  bool finite = true;
  std::array<float, static_cast<std::size_t>(blocks_max)> of;

  [[nodiscard]] float at(std::int64_t index) const { return of[static_cast<std::size_t>(index)]; }
};

}  // namespace
}  // namespace troupe::kernels
#endif

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t sum_lanes = 32;  // partial sums: two vectors of AVX-512, four of AVX2
constexpr std::int64_t sum_parts = sum_lanes / width;
constexpr std::int64_t fold_tokens = 2048;  // bounds the length of a chain of additions

void find_maxima(const vocabulary_run& run, block_maxima& maxima) {
  const std::int64_t units = (run.count + block_unit - 1) / block_unit;
  maxima.block = std::max<std::int64_t>(1, (units + blocks_max - 1) / blocks_max) * block_unit;
  const words magnitude = hn::Set(word, 0x7FFFFFFFU);
  words largest = hn::Zero(word);
  lanes overall = hn::Set(tag, -infinity);
  for (std::int64_t begin = 0; begin < run.count; begin += maxima.block) {
    const std::int64_t end = std::min(run.count, begin + maxima.block);
    lanes highest = hn::Set(tag, -infinity);
    std::int64_t i = begin;
    for (; i + width <= end; i += width) {
      const lanes x = hn::LoadU(tag, run.logits + i);
      highest = hn::Max(highest, x);
      largest = hn::Max(largest, hn::And(hn::BitCast(word, x), magnitude));
    }
    if (i < end) {
      const lanes x = load_some(run.logits + i, end - i);
      const lanes masked = hn::IfThenElse(first_lanes(end - i), x, hn::Set(tag, -infinity));
      highest = hn::Max(highest, masked);
      largest = hn::Max(largest, hn::And(hn::BitCast(word, x), magnitude));
    }
    overall = hn::Max(overall, highest);
    maxima.of[static_cast<std::size_t>(maxima.count++)] = hn::GetLane(hn::MaxOfLanes(tag, highest));
  }
  // + 0: of a maximum of zeros of both signs, always the positive one.
  maxima.maximum = hn::GetLane(hn::MaxOfLanes(tag, overall)) + 0.0F;
  maxima.finite = hn::AllTrue(word, hn::Lt(largest, hn::Set(word, 0x7F800000U)));
}

HWY_INLINE float fold(const lanes* sums) {
  HWY_ALIGN float parts[static_cast<std::size_t>(sum_lanes)];
  for (std::int64_t part = 0; part < sum_parts; ++part) {
    hn::Store(sums[part], tag, parts + part * width);
  }
  for (std::int64_t half = sum_lanes / 2; half > 0; half /= 2) {
    for (std::int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

// Sums of exp(logit - maximum) and of exp((logit - maximum) * inverse).
template <bool tempered>
void sum_exponentials(const vocabulary_run& run, float maximum, float inverse,
                      run_summary& summary) {
  const lanes top = hn::Set(tag, maximum);
  const lanes factor = hn::Set(tag, inverse);
  for (std::int64_t begin = 0; begin < run.count; begin += fold_tokens) {
    const std::int64_t end = std::min(run.count, begin + fold_tokens);
    lanes plain[static_cast<std::size_t>(sum_parts)];
    lanes warm[static_cast<std::size_t>(sum_parts)];
    for (std::int64_t part = 0; part < sum_parts; ++part) plain[part] = warm[part] = hn::Zero(tag);
    std::int64_t i = begin;
    for (; i + sum_lanes <= end; i += sum_lanes) {
      for (std::int64_t part = 0; part < sum_parts; ++part) {
        const lanes below = hn::Sub(hn::LoadU(tag, run.logits + i + part * width), top);
        plain[part] = hn::Add(plain[part], exponential(below));
        if constexpr (tempered) {
          warm[part] = hn::Add(warm[part], exponential(hn::Mul(below, factor)));
        }
      }
    }
    for (std::int64_t part = 0; i < end; i += width, ++part) {
      const auto mask = first_lanes(std::min(width, end - i));
      const lanes below = hn::Sub(hn::MaskedLoad(mask, tag, run.logits + i), top);
      plain[part] = hn::Add(plain[part], hn::IfThenElseZero(mask, exponential(below)));
      if constexpr (tempered) {
        const lanes e = exponential(hn::Mul(below, factor));
        warm[part] = hn::Add(warm[part], hn::IfThenElseZero(mask, e));
      }
    }
    summary.sum_exp += fold(plain);
    if constexpr (tempered) summary.sum_exp_tempered += fold(warm);
  }
}

void take_greedy(const vocabulary_run& run, const block_maxima& maxima, run_summary& summary) {
  const float* const end = maxima.of.data() + maxima.count;
  const std::int64_t block = std::find(maxima.of.data(), end, maxima.maximum) - maxima.of.data();
  const float* const place =
      std::find(run.logits + block * maxima.block, run.logits + run.count, maxima.maximum);
  const std::int64_t index = place - run.logits;
  summary.noise_best = {static_cast<std::int32_t>(run.first_id + index), *place};
  summary.noise_best_score = maxima.maximum;
}

// The highest score so far; scores come by ascending id, so only a higher one replaces it.
struct best_lanes {
  lanes score;
  integers id;
};

void score_group(const vocabulary_run& run, std::int64_t first, const float* noise, float inverse,
                 best_lanes& best) {
  const float* const logits = run.logits + (first - run.first_id);
  for (std::int64_t i = 0; i < noise_group; i += width) {
    const lanes tempered = hn::Mul(hn::LoadU(tag, logits + i), hn::Set(tag, inverse));
    const lanes score = hn::Add(tempered, hn::Load(tag, noise + i));
    const auto better = hn::Gt(score, best.score);
    best.score = hn::IfThenElse(better, score, best.score);
    best.id = hn::IfThenElse(hn::RebindMask(integer, better),
                             hn::Iota(integer, static_cast<std::int32_t>(first + i)), best.id);
  }
}

// A group that the run holds only in part: the same operations, one token at a time.
void score_partly(const vocabulary_run& run, std::int64_t begin, std::int64_t end,
                  const float* noise, float inverse, run_summary& summary) {
  for (std::int64_t id = begin; id < end; ++id) {
    const float tempered = run.logits[id - run.first_id] * inverse;
    const float score = tempered + noise[id % noise_group];
    if (score > summary.noise_best_score) {
      summary.noise_best_score = score;
      summary.noise_best.token_id = static_cast<std::int32_t>(id);
    }
  }
}

void merge_best(const best_lanes& best, run_summary& summary) {
  HWY_ALIGN float scores[static_cast<std::size_t>(width)];
  HWY_ALIGN std::int32_t ids[static_cast<std::size_t>(width)];
  hn::Store(best.score, tag, scores);
  hn::Store(best.id, integer, ids);
  for (std::int64_t i = 0; i < width; ++i) {
    if (ids[i] < 0) continue;
    const bool lower =
        scores[i] == summary.noise_best_score && ids[i] < summary.noise_best.token_id;
    if (scores[i] > summary.noise_best_score || lower) {
      summary.noise_best_score = scores[i];
      summary.noise_best.token_id = ids[i];
    }
  }
}

// Random bits above this cannot lift a token of logit * inverse <= upper to the score `bound`. A
// noise g >= t needs E = e^-g <= e^-t, and w <= E: bits <= 2^32 e^-t. `slack` outweighs the errors
// of g (9 u |g|), of the exponential and of the roundings of the score.
HWY_INLINE std::uint32_t bits_limit(float upper, float bound) {
  const float slack = 1e-4F + 0x1p-21F * (std::fabs(upper) + std::fabs(bound));
  const float needed = bound - upper - slack;
  if (!(needed > 1e-3F)) return ~0U;  // a share that rounds to 1 would not fit below
  const float share = hn::GetLane(exponential(hn::Set(tag, -needed)));
  return static_cast<std::uint32_t>(share * 0x1p32F);
}

void take_noisy(const vocabulary_run& run, const block_maxima& maxima, float inverse,
                run_summary& summary) {
  HWY_ALIGN float noise[static_cast<std::size_t>(noise_group)];
  best_lanes best{hn::Set(tag, -infinity), hn::Set(integer, -1)};
  // The token of the maximum scores at least this: rounding is monotone.
  float bound = maxima.maximum * inverse + gumbel_constants::lowest;
  const std::int64_t end_id = run.first_id + run.count;
  std::int64_t first = run.first_id / noise_group * noise_group;
  for (; first < end_id; first += noise_group) {
    const std::int64_t begin = std::max(first, run.first_id);
    const std::int64_t end = std::min(first + noise_group, end_id);
    const float upper = inverse * std::max(maxima.at((begin - run.first_id) / maxima.block),
                                           maxima.at((end - 1 - run.first_id) / maxima.block));
    if (upper + gumbel_constants::highest < bound) continue;
    const group_bits bits = bits_of_group(*run.row, first);
    if (!any_at_most(bits, bits_limit(upper, bound))) continue;
    noise_from_bits(bits, noise);
    if (end - begin == noise_group) {
      score_group(run, first, noise, inverse, best);
      bound = std::max(bound, hn::GetLane(hn::MaxOfLanes(tag, best.score)));
    } else {
      score_partly(run, begin, end, noise, inverse, summary);
      bound = std::max(bound, summary.noise_best_score);
    }
  }
  merge_best(best, summary);
  summary.noise_best.logit = run.logits[summary.noise_best.token_id - run.first_id];
}

void take_top(const vocabulary_run& run, const block_maxima& maxima) {
  const auto wanted = static_cast<std::int64_t>(run.top.size());
  float threshold = -infinity;
  if (wanted <= maxima.count) {  // as many blocks hold a token at least this high
    auto ranked = maxima.of;
    std::nth_element(ranked.begin(), ranked.begin() + (wanted - 1), ranked.begin() + maxima.count,
                     std::greater<>());
    threshold = ranked[static_cast<std::size_t>(wanted - 1)];
  }
  top_candidates top(static_cast<int>(wanted), threshold);
  for (std::int64_t block = 0; block < maxima.count; ++block) {
    if (maxima.at(block) < top.threshold()) continue;
    const std::int64_t begin = block * maxima.block;
    const std::int64_t end = std::min(run.count, begin + maxima.block);
    for (std::int64_t i = begin; i < end; i += width) {
      const auto inside = first_lanes(std::min(width, end - i));
      const lanes x = hn::MaskedLoad(inside, tag, run.logits + i);
      const auto high = hn::And(inside, hn::Ge(x, hn::Set(tag, top.threshold())));
      std::uint8_t bytes[8] = {};
      hn::StoreMaskBits(tag, high, bytes);
      for (std::uint32_t bits = bytes[0] | (static_cast<std::uint32_t>(bytes[1]) << 8); bits != 0;
           bits &= bits - 1) {
        const std::int64_t index = i + __builtin_ctz(bits);
        top.offer(run.logits[index], static_cast<std::int32_t>(run.first_id + index));
      }
    }
  }
  top.write(run.logits, run.first_id, run.top);
}

}  // namespace

void summarise_run(const vocabulary_run& run, run_summary& summary) {
  summary = {};
  summary.maximum = summary.noise_best_score = -infinity;
  std::fill(run.top.begin(), run.top.end(), token_candidate{});
  if (run.count == 0) return;
  block_maxima maxima;
  find_maxima(run, maxima);
  summary.maximum = maxima.maximum;
  summary.finite = maxima.finite;
  if (!maxima.finite) return;
  const bool greedy = run.row->temperature == 0.0F;
  const float inverse = greedy ? 0.0F : inverse_temperature(run.row->temperature);
  if (greedy || inverse == 1.0F) {
    sum_exponentials<false>(run, maxima.maximum, inverse, summary);
    if (!greedy) summary.sum_exp_tempered = summary.sum_exp;
  } else {
    sum_exponentials<true>(run, maxima.maximum, inverse, summary);
  }
  if (greedy) {
    take_greedy(run, maxima, summary);
  } else {
    take_noisy(run, maxima, inverse, summary);
  }
  if (!run.top.empty()) take_top(run, maxima);
}

void fill_noise(const sampling_row& row, std::int64_t first_id, std::span<float> noise) {
  HWY_ALIGN float group[static_cast<std::size_t>(noise_group)];
  const std::int64_t end_id = first_id + static_cast<std::int64_t>(noise.size());
  std::int64_t first = first_id / noise_group * noise_group;
  for (; first < end_id; first += noise_group) {
    noise_from_bits(bits_of_group(row, first), group);
    const std::int64_t begin = std::max(first, first_id);
    const std::int64_t end = std::min(first + noise_group, end_id);
    std::copy(group + (begin - first), group + (end - first), noise.data() + (begin - first_id));
  }
}

}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace troupe::kernels {
namespace {

// Less than this is done before a thread has woken up.
constexpr std::int64_t inline_tokens = 8192;
constexpr std::int64_t token_ids_max = std::int64_t{1} << 31;

void check(const summarise_vocabulary_args& args) {
  const std::int64_t columns = args.logits.columns();
  const std::size_t places = args.rows.size() * args.run_ends.size();
  TROUPE_CHECK(args.logits.type == dtype::float32);
  TROUPE_CHECK(args.logits.rows() == static_cast<std::int64_t>(args.rows.size()));
  TROUPE_CHECK(args.candidates >= 0 && args.candidates <= vocabulary_candidates_max);
  TROUPE_CHECK(args.summaries.size() == places);
  TROUPE_CHECK(args.top.size() == places * static_cast<std::size_t>(args.candidates));
  TROUPE_CHECK(args.first_token_id >= 0 && args.first_token_id + columns <= token_ids_max);
  std::int64_t begin = 0;
  for (const std::int64_t end : args.run_ends) {
    TROUPE_CHECK(end >= begin);
    begin = end;
  }
  TROUPE_CHECK(begin == columns);
  for (const sampling_row& row : args.rows) TROUPE_CHECK(row.temperature >= 0.0F);
}

vocabulary_run run_at(const summarise_vocabulary_args& args, std::int64_t place) {
  const auto runs = static_cast<std::int64_t>(args.run_ends.size());
  const auto run = static_cast<std::size_t>(place % runs);
  const std::int64_t begin = run == 0 ? 0 : args.run_ends[run - 1];
  const auto candidates = static_cast<std::size_t>(args.candidates);
  return {.logits = args.logits.row<float>(place / runs) + begin,
          .count = args.run_ends[run] - begin,
          .first_id = args.first_token_id + begin,
          .row = &args.rows[static_cast<std::size_t>(place / runs)],
          .top = args.top.subspan(static_cast<std::size_t>(place) * candidates, candidates)};
}

}  // namespace

void summarise_vocabulary(instruction_path path, thread_pool& pool,
                          const summarise_vocabulary_args& args) {
  check(args);
  const auto places = static_cast<std::int64_t>(args.summaries.size());
  const auto summarise = [&](std::int64_t place, int /*thread*/) {
    TROUPE_SIMD_CALL(path, summarise_run, run_at(args, place),
                     args.summaries[static_cast<std::size_t>(place)]);
  };
  if (args.logits.rows() * args.logits.columns() <= inline_tokens || pool.threads() == 1) {
    for (std::int64_t place = 0; place < places; ++place) summarise(place, 0);
  } else {
    pool.parallel_for(places, summarise);
  }
}

void fill_gumbel_noise(instruction_path path, const sampling_row& row, std::int32_t first_token_id,
                       std::span<float> noise) {
  TROUPE_CHECK(first_token_id >= 0);
  TROUPE_CHECK(first_token_id + static_cast<std::int64_t>(noise.size()) <= token_ids_max);
  TROUPE_SIMD_CALL(path, fill_noise, row, first_token_id, noise);
}

}  // namespace troupe::kernels
#endif
