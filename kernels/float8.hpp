// float8_e4m3: a sign, 4 bits of exponent (bias 7), 3 of mantissa; finite up to 448, without
// infinities; 0x7F and 0xFF are NaN. In blocks: one float32 scale for 128 outputs by 128 inputs,
// weight = float(code) * scale.
// Source: Micikevicius et al., "FP8 formats for deep learning" (2022), table 1.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace troupe::kernels {

inline constexpr std::int64_t float8_block = 128;  // outputs and inputs that share a scale
inline constexpr float float8_max = 448.0F;

// Exact. The exponent is rebiased by a multiplication with 2^(127 - 7), right for subnormals too.
[[nodiscard]] constexpr float from_float8(std::uint8_t code) noexcept {
  const std::uint32_t magnitude = code & 0x7FU;
  if (magnitude == 0x7FU) return std::numeric_limits<float>::quiet_NaN();
  const float value = std::bit_cast<float>(magnitude << 20U) * 0x1p120F;
  return (code & 0x80U) != 0 ? -value : value;
}

// Rounds towards zero. Range: |value| <= float8_max.
[[nodiscard]] inline std::uint8_t to_float8_towards_zero(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  const float absolute = std::bit_cast<float>(magnitude);
  const auto subnormal = static_cast<std::uint32_t>(absolute * 512.0F);
  const std::uint32_t normal = (magnitude >> 20U) - ((127U - 7U) << 3U);
  return static_cast<std::uint8_t>((bits >> 24U & 0x80U) |
                                   (absolute < 0x1p-6F ? subnormal : normal));
}

// Where input `i` of 64 lies in a device's memory: byte 16 t + 4 s + j holds input
// 16 s + 2 t + j % 2 + j / 2 * 8, which is what lane t of four needs for step s of the tensor
// cores.
inline constexpr int float8_group = 64;
[[nodiscard]] constexpr int float8_place(int i) noexcept {
  const int step = i / 16;
  const int within = i % 16;
  return 16 * (within % 8 / 2) + 4 * step + within / 8 * 2 + within % 2;
}

[[nodiscard]] inline bool has_float8_nan(std::span<const std::byte> codes) noexcept {
  bool found = false;
  for (const std::byte code : codes) found |= (code | std::byte{0x80}) == std::byte{0xFF};
  return found;
}

}  // namespace troupe::kernels
