// From 32 random bits to standard Gumbel noise, in plain float32 products and sums.
//
// No fused multiply-add and no library logarithm: this scalar code and the vector code of every
// instruction path (gumbel_inl.hpp) do the same IEEE operations and give the same bits.
//
// k = the upper 30 bits; w = (2k + 1) / 2^31 and u = 1 - w, both strictly inside (0, 1) and both
// exact integers before their one rounding to float. E = -log(u) is exponential, g = -log(E)
// Gumbel. Near u = 1, where the largest noise comes from, log(u) = log1p(-w) is taken from w, which
// keeps 24 significant bits there: the upper tail is exact to 2^-31, the lower tail likewise from
// u.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/vocabulary/vocabulary_types.hpp"

namespace troupe::kernels {

struct gumbel_constants {
  // Every noise lies strictly between: the extremes are 31 ln 2 = 21.4876 at w = 2^-31 and
  // -ln(31 ln 2) = -3.0675 at u = 2^-31. The tests run through all 2^30 values in steps.
  static constexpr float highest = 21.5F;
  static constexpr float lowest = -3.07F;

  // log(1 + f) = f - f^2 / 2 + f^3 P(f): P is the minimax polynomial on [sqrt(1/2) - 1, sqrt(2) -
  // 1], 6e-9 relative to the logarithm in exact arithmetic. Highest power first.
  static constexpr float log_polynomial[8] = {-0x1.38fa5ap-4F, 0x1.0583fap-3F,  -0x1.0d88dcp-3F,
                                              0x1.22d47ap-3F,  -0x1.547174p-3F, 0x1.99a03cp-3F,
                                              -0x1.00022ap-2F, 0x1.555554p-2F};
  // ln 2 in two parts; the first has 15 bits, so that its product with an exponent is exact.
  static constexpr float ln2_high = 0x1.62e400p-1F;
  static constexpr float ln2_low = 0x1.7f7d1cp-20F;
  static constexpr std::uint32_t root_half_bits = 0x3F3504F3U;  // of sqrt(1/2)
};

// log(2^exponent (1 + f)) for f in the polynomial's range.
[[nodiscard]] constexpr float log_from_parts(float f, std::int32_t exponent) noexcept {
  // A local copy: device code cannot take the address of a member.
  constexpr auto polynomial = std::to_array(gumbel_constants::log_polynomial);
  float p = polynomial[0];
  for (std::size_t i = 1; i < polynomial.size(); ++i) p = p * f + polynomial[i];
  const float square = f * f;
  const auto e = static_cast<float>(exponent);
  float y = square * f * p;
  y = y + e * gumbel_constants::ln2_low;
  y = y - 0.5F * square;
  return (f + y) + e * gumbel_constants::ln2_high;
}

struct log_parts {
  float f = 0.0F;  // value = 2^exponent (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); exact
  std::int32_t exponent = 0;
};
[[nodiscard]] constexpr log_parts split_for_log(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto above = static_cast<std::int32_t>(bits - gumbel_constants::root_half_bits);
  const std::int32_t exponent = above >> 23;
  const auto mantissa = bits - (static_cast<std::uint32_t>(exponent) << 23);
  return {std::bit_cast<float>(mantissa) - 1.0F, exponent};
}

// Range: any 32 bits; the lower two are not used.
[[nodiscard]] constexpr float gumbel_from_bits(std::uint32_t bits) noexcept {
  const auto odd = static_cast<std::int32_t>((bits >> 2) * 2U + 1U);
  const std::int32_t complement =
      static_cast<std::int32_t>(0x80000000U - static_cast<std::uint32_t>(odd));
  const float w = static_cast<float>(odd) * 0x1p-31F;
  const float u = static_cast<float>(complement) * 0x1p-31F;
  log_parts parts = split_for_log(u);
  if (parts.exponent == 0) parts.f = -w;
  const float exponential = -log_from_parts(parts.f, parts.exponent);
  parts = split_for_log(exponential);
  return -log_from_parts(parts.f, parts.exponent);
}

}  // namespace troupe::kernels
