// Philox4x32-10: 128 bits of noise from a 128-bit counter and a 64-bit key, without state.
#pragma once

#include <array>
#include <cstdint>

namespace troupe::kernels {

struct philox_constants {
  static constexpr int rounds = 10;
  static constexpr std::uint32_t multiplier[2] = {0xD2511F53U, 0xCD9E8D57U};
  // Added to the key after each round: the golden ratio and sqrt(3) - 1, as 32-bit fractions.
  static constexpr std::uint32_t key_step[2] = {0x9E3779B9U, 0xBB67AE85U};
};

// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3 and
// table 2.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32_10(
    std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) noexcept {
  // Local copies: device code cannot take the address of a member.
  constexpr std::uint64_t first = philox_constants::multiplier[0];
  constexpr std::uint64_t second = philox_constants::multiplier[1];
  constexpr std::uint32_t first_step = philox_constants::key_step[0];
  constexpr std::uint32_t second_step = philox_constants::key_step[1];
  for (int round = 0; round < philox_constants::rounds; ++round) {
    const std::uint64_t a = first * counter[0];
    const std::uint64_t b = second * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += first_step;
    key[1] += second_step;
  }
  return counter;
}

}  // namespace troupe::kernels
