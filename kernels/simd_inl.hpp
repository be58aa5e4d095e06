// Vector pieces shared by the element-wise ops; included once per target, after Highway.
//
// Tails are the same vector instructions under a mask, so an element gets the same bits whether it
// lies in a body or a tail, at any column. Nothing past `count` elements is read or written.
#if defined(TROUPE_KERNELS_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef TROUPE_KERNELS_SIMD_INL_HPP
#undef TROUPE_KERNELS_SIMD_INL_HPP
#else
#define TROUPE_KERNELS_SIMD_INL_HPP
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "kernels/simd_paths.hpp"

#if TROUPE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace troupe::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using lanes_tag = hn::ScalableTag<float>;
using lanes = hn::Vec<lanes_tag>;
using half_words_tag = hn::Rebind<std::uint16_t, lanes_tag>;
constexpr lanes_tag tag;
constexpr std::int64_t width = static_cast<std::int64_t>(hn::MaxLanes(lanes_tag()));

[[maybe_unused]] HWY_INLINE hn::Mask<lanes_tag> first_lanes(std::int64_t count) {
  return hn::FirstN(tag, static_cast<std::size_t>(count));
}
// `count` < width elements, zeros behind them.
[[maybe_unused]] HWY_INLINE lanes load_some(const float* from, std::int64_t count) {
  return hn::MaskedLoad(first_lanes(count), tag, from);
}

// Rounds to nearest, ties to even; NaN stays NaN.
[[maybe_unused]] HWY_INLINE hn::Vec<half_words_tag> to_bfloat16(lanes value) {
  const hn::RebindToUnsigned<lanes_tag> words;
  const auto bits = hn::BitCast(words, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7FFF)));
  const auto quiet = hn::Or(bits, hn::Set(words, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(words, hn::IsNaN(value)), quiet, rounded);
  return hn::DemoteTo(half_words_tag(),
                      hn::BitCast(hn::RebindToSigned<lanes_tag>(), hn::ShiftRight<16>(chosen)));
}

[[maybe_unused]] HWY_INLINE void store_all(lanes value, float* to) { hn::StoreU(value, tag, to); }
[[maybe_unused]] HWY_INLINE void store_all(lanes value, std::uint16_t* to) {
  hn::StoreU(to_bfloat16(value), half_words_tag(), to);
}
[[maybe_unused]] HWY_INLINE void store_some(lanes value, float* to, std::int64_t count) {
  hn::BlendedStore(value, first_lanes(count), tag, to);
}
[[maybe_unused]] HWY_INLINE void store_some(lanes value, std::uint16_t* to, std::int64_t count) {
  HWY_ALIGN std::uint16_t words[static_cast<std::size_t>(width)];
  hn::Store(to_bfloat16(value), half_words_tag(), words);
  for (std::int64_t i = 0; i < count; ++i) to[i] = words[i];
}

// p 2^n, n whole in [-126, 128]: exact, or infinity.
[[maybe_unused]] HWY_INLINE lanes times_power_of_two(lanes p, lanes n) {
#if HWY_TARGET == HWY_AVX3
  return lanes{_mm512_scalef_ps(p.raw, n.raw)};
#else
  // In two factors: n reaches 128, which one exponent field cannot hold.
  const hn::RebindToSigned<lanes_tag> integers;
  const auto whole = hn::ConvertTo(integers, n);
  const auto low = hn::ShiftRight<1>(whole);
  const auto bias = hn::Set(integers, 127);
  const lanes first = hn::BitCast(tag, hn::ShiftLeft<23>(hn::Add(low, bias)));
  const lanes second = hn::BitCast(tag, hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, low), bias)));
  return hn::Mul(hn::Mul(p, first), second);
#endif
}

// e^x: 0 below -126 ln 2, infinity above 128 ln 2, NaN of NaN. Error below 1.1 ulp, where a result
// just under a power of two counts most: r and r + r^2 p round to 2^-26 each (1/4 ulp), the last
// sum 1/2 ulp, the polynomial is the minimax fit to e^r on |r| <= ln(2)/2 with 5e-9 (0.08 ulp).
[[maybe_unused]] HWY_INLINE lanes exponential(lanes x) {
  const auto tiny = hn::Lt(x, hn::Set(tag, -87.33654F));
  x = hn::Max(hn::Set(tag, -87.4F), hn::Min(hn::Set(tag, 89.0F), x));  // in this order NaN stays
  const lanes n = hn::Round(hn::Mul(x, hn::Set(tag, 0x1.715476p+0F)));
  lanes r = hn::NegMulAdd(n, hn::Set(tag, 0x1.62e400p-1F), x);
  r = hn::NegMulAdd(n, hn::Set(tag, 0x1.7f7d1cp-20F), r);
  lanes p = hn::Set(tag, 0x1.6ffd56p-10F);
  p = hn::MulAdd(p, r, hn::Set(tag, 0x1.12585ep-7F));
  p = hn::MulAdd(p, r, hn::Set(tag, 0x1.5552fep-5F));
  p = hn::MulAdd(p, r, hn::Set(tag, 0x1.555466p-3F));
  p = hn::MulAdd(p, r, hn::Set(tag, 0x1.000000p-1F));
  p = hn::MulAdd(p, hn::Mul(r, r), r);
  p = hn::Add(p, hn::Set(tag, 1.0F));
  return hn::IfThenElse(tiny, hn::Zero(tag), times_power_of_two(p, n));
}

}  // namespace
}  // namespace troupe::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // TROUPE_SIMD_TARGET
#endif  // include guard of this target
