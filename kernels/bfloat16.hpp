// One bfloat16 at a time: for references, tests and other code where speed does not matter.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace troupe::kernels {

// Rounds to nearest, ties to even; NaN stays NaN.
[[nodiscard]] inline std::uint16_t to_bfloat16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

[[nodiscard]] inline float from_bfloat16(std::uint16_t value) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

}  // namespace troupe::kernels
