// Gumbel noise in vectors: the operations of gumbel.hpp and philox.hpp, one for one; included once
// per target.
#if defined(TROUPE_KERNELS_VOCABULARY_GUMBEL_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef TROUPE_KERNELS_VOCABULARY_GUMBEL_INL_HPP
#undef TROUPE_KERNELS_VOCABULARY_GUMBEL_INL_HPP
#else
#define TROUPE_KERNELS_VOCABULARY_GUMBEL_INL_HPP
#endif

#include "kernels/simd_inl.hpp"
#include "kernels/vocabulary/gumbel.hpp"
#include "kernels/vocabulary/philox.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

using words_tag = hn::RebindToUnsigned<lanes_tag>;
using words = hn::Vec<words_tag>;
using integers_tag = hn::RebindToSigned<lanes_tag>;
using integers = hn::Vec<integers_tag>;
constexpr words_tag word;
constexpr integers_tag integer;

constexpr std::int64_t noise_group = 64;  // tokens whose noise is computed together

HWY_INLINE lanes log_from_parts(lanes f, integers exponent) {
  lanes p = hn::Set(tag, gumbel_constants::log_polynomial[0]);
  for (int i = 1; i < 8; ++i) {
    p = hn::Add(hn::Mul(p, f), hn::Set(tag, gumbel_constants::log_polynomial[i]));
  }
  const lanes square = hn::Mul(f, f);
  const lanes e = hn::ConvertTo(tag, exponent);
  lanes y = hn::Mul(hn::Mul(square, f), p);
  y = hn::Add(y, hn::Mul(e, hn::Set(tag, gumbel_constants::ln2_low)));
  y = hn::Sub(y, hn::Mul(hn::Set(tag, 0.5F), square));
  return hn::Add(hn::Add(f, y), hn::Mul(e, hn::Set(tag, gumbel_constants::ln2_high)));
}

struct vector_log_parts {
  lanes f;
  integers exponent;
};
HWY_INLINE vector_log_parts split_for_log(lanes value) {
  const words bits = hn::BitCast(word, value);
  const words above = hn::Sub(bits, hn::Set(word, gumbel_constants::root_half_bits));
  const integers exponent = hn::ShiftRight<23>(hn::BitCast(integer, above));
  const words mantissa = hn::Sub(bits, hn::BitCast(word, hn::ShiftLeft<23>(exponent)));
  return {hn::Sub(hn::BitCast(tag, mantissa), hn::Set(tag, 1.0F)), exponent};
}

HWY_INLINE lanes gumbel_from_bits(words bits) {
  const words odd = hn::Or(hn::ShiftLeft<1>(hn::ShiftRight<2>(bits)), hn::Set(word, 1));
  const words complement = hn::Sub(hn::Set(word, 0x80000000U), odd);
  const lanes scale = hn::Set(tag, 0x1p-31F);
  const lanes w = hn::Mul(hn::ConvertTo(tag, hn::BitCast(integer, odd)), scale);
  const lanes u = hn::Mul(hn::ConvertTo(tag, hn::BitCast(integer, complement)), scale);
  vector_log_parts parts = split_for_log(u);
  const auto near_one = hn::RebindMask(tag, hn::Eq(parts.exponent, hn::Zero(integer)));
  parts.f = hn::IfThenElse(near_one, hn::Neg(w), parts.f);
  const lanes exponential = hn::Neg(log_from_parts(parts.f, parts.exponent));
  parts = split_for_log(exponential);
  return hn::Neg(log_from_parts(parts.f, parts.exponent));
}

// The random bits of noise_group tokens. Of each 4 * width tokens, vector w of four holds the
// tokens 4 i + w in lanes i: word w of the generator at counter i.
constexpr std::int64_t group_vectors = noise_group / width;
struct group_bits {
  words of[static_cast<std::size_t>(group_vectors)];
};

// Four words of the generator for counters in 64-bit lanes. Only the lower halves count: the upper
// ones hold rubbish that multiplications do not read.
using wide_tag = hn::RepartitionToWide<words_tag>;
using wide = hn::Vec<wide_tag>;
HWY_INLINE void philox_of_lower_halves(const sampling_row& row, wide counter0, wide (&of)[4]) {
  const wide_tag d;
  const words multiplier0 = hn::Set(word, philox_constants::multiplier[0]);
  const words multiplier1 = hn::Set(word, philox_constants::multiplier[1]);
  of[0] = counter0;
  of[1] = hn::Set(d, std::uint64_t{row.choice});
  of[2] = hn::Set(d, row.token_index);
  of[3] = hn::Set(d, row.token_index >> 32);
  auto key0 = static_cast<std::uint32_t>(row.seed);
  auto key1 = static_cast<std::uint32_t>(row.seed >> 32);
  for (int round = 0; round < philox_constants::rounds; ++round) {
    const wide a = hn::MulEven(hn::BitCast(word, of[0]), multiplier0);
    const wide b = hn::MulEven(hn::BitCast(word, of[2]), multiplier1);
    of[0] = hn::Xor(hn::Xor(hn::ShiftRight<32>(b), of[1]), hn::Set(d, std::uint64_t{key0}));
    of[2] = hn::Xor(hn::Xor(hn::ShiftRight<32>(a), of[3]), hn::Set(d, std::uint64_t{key1}));
    of[1] = b;
    of[3] = a;
    key0 += philox_constants::key_step[0];
    key1 += philox_constants::key_step[1];
  }
}

// Of tokens [first, first + noise_group), first a multiple of noise_group.
[[maybe_unused]] HWY_INLINE group_bits bits_of_group(const sampling_row& row, std::int64_t first) {
  group_bits bits;
  for (std::int64_t part = 0; part < group_vectors; part += 4) {
    const auto counter = static_cast<std::uint32_t>(first / 4 + part / 4 * width);
    const wide counters = hn::BitCast(wide_tag(), hn::Iota(word, counter));
    wide even[4];
    wide odd[4];
    philox_of_lower_halves(row, counters, even);
    philox_of_lower_halves(row, hn::ShiftRight<32>(counters), odd);
    for (std::int64_t i = 0; i < 4; ++i) {
      const words upper = hn::BitCast(word, hn::ShiftLeft<32>(odd[i]));
      bits.of[part + i] = hn::OddEven(upper, hn::BitCast(word, even[i]));
    }
  }
  return bits;
}

// Low bits make high noise: could any of these tokens have noise from bits <= limit?
[[maybe_unused]] HWY_INLINE bool any_at_most(const group_bits& bits, std::uint32_t limit) {
  words lowest = bits.of[0];
  for (std::int64_t i = 1; i < group_vectors; ++i) lowest = hn::Min(lowest, bits.of[i]);
  return !hn::AllTrue(word, hn::Gt(lowest, hn::Set(word, limit)));
}

[[maybe_unused]] HWY_INLINE void noise_from_bits(const group_bits& bits,
                                                 float* HWY_RESTRICT noise) {
  for (std::int64_t part = 0; part < group_vectors; part += 4) {
    hn::StoreInterleaved4(gumbel_from_bits(bits.of[part]), gumbel_from_bits(bits.of[part + 1]),
                          gumbel_from_bits(bits.of[part + 2]), gumbel_from_bits(bits.of[part + 3]),
                          tag, noise + part * width);
  }
}

}  // namespace
}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // TROUPE_SIMD_TARGET
#endif  // include guard of this target
