// One float16 (IEEE binary16) at a time.
#pragma once

#include <bit>
#include <cstdint>

namespace troupe::kernels {

// Exact. The exponent is rebiased by a multiplication with 2^(127 - 15), which holds for subnormals
// too; infinity and NaN get the highest exponent.
[[nodiscard]] inline float from_float16(std::uint16_t half) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7FFFU) << 13;
  const auto scaled = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F);
  const std::uint32_t special = magnitude >= 0x0F800000U ? 0x7F800000U : 0U;
  return std::bit_cast<float>(sign | scaled | special);
}

// To nearest, ties to even. Range: finite, at most 65,504.
[[nodiscard]] inline std::uint16_t to_float16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  constexpr std::uint32_t least_normal = 0x38800000U;  // 2^-14
  if (magnitude < least_normal) {
    // Whole multiples of 2^-24, rounded by an addition that leaves no lower bits.
    const float units = std::bit_cast<float>(magnitude) * 0x1p24F + 0x1.8p23F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(units) & 0xFFFFU));
  }
  const std::uint32_t rounded = (magnitude + 0xFFFU + (magnitude >> 13 & 1U)) >> 13;
  return static_cast<std::uint16_t>(sign | (rounded - (112U << 10)));
}

}  // namespace troupe::kernels
