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

constexpr std::int64_t noise_group = 64;  // tokens of one call of noise_of_group

struct wide_product {
  words high;
  words low;
};
HWY_INLINE wide_product multiply(words a, std::uint32_t by) {
  const hn::RepartitionToWide<words_tag> wide;
  const words factor = hn::Set(word, by);
  const words odd_places = hn::BitCast(word, hn::ShiftRight<32>(hn::BitCast(wide, a)));
  const auto even = hn::MulEven(a, factor);
  const auto odd = hn::MulEven(odd_places, factor);
  return {hn::OddEven(hn::BitCast(word, odd), hn::BitCast(word, hn::ShiftRight<32>(even))),
          hn::OddEven(hn::BitCast(word, hn::ShiftLeft<32>(odd)), hn::BitCast(word, even))};
}

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

// Noise of tokens [first, first + noise_group), first a multiple of noise_group.
[[maybe_unused]] void noise_of_group(const sampling_row& row, std::int64_t first,
                                     float* HWY_RESTRICT noise) {
  for (std::int64_t part = 0; part < noise_group; part += 4 * width) {
    words counter[4] = {hn::Iota(word, static_cast<std::uint32_t>((first + part) / 4)),
                        hn::Set(word, row.choice),
                        hn::Set(word, static_cast<std::uint32_t>(row.token_index)),
                        hn::Set(word, static_cast<std::uint32_t>(row.token_index >> 32))};
    auto key0 = static_cast<std::uint32_t>(row.seed);
    auto key1 = static_cast<std::uint32_t>(row.seed >> 32);
    for (int round = 0; round < philox_constants::rounds; ++round) {
      const wide_product a = multiply(counter[0], philox_constants::multiplier[0]);
      const wide_product b = multiply(counter[2], philox_constants::multiplier[1]);
      counter[0] = hn::Xor(hn::Xor(b.high, counter[1]), hn::Set(word, key0));
      counter[2] = hn::Xor(hn::Xor(a.high, counter[3]), hn::Set(word, key1));
      counter[1] = b.low;
      counter[3] = a.low;
      key0 += philox_constants::key_step[0];
      key1 += philox_constants::key_step[1];
    }
    hn::StoreInterleaved4(gumbel_from_bits(counter[0]), gumbel_from_bits(counter[1]),
                          gumbel_from_bits(counter[2]), gumbel_from_bits(counter[3]), tag,
                          noise + part);
  }
}

}  // namespace
}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // TROUPE_SIMD_TARGET
#endif  // include guard of this target
