// By which way a group's device buffers travel: device to device, or through host memory. Every
// rank says what it has (an offer), all see all offers and come to the same answer.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace troupe::engine {

// --device-collectives. `automatic`: device to device where every rank of the group has a device of
// its own, on one host, and the library is there.
enum class device_collectives : std::uint8_t { automatic, host, nccl };

// Travels as its bytes between ranks of one build. From another process: compared, never trusted.
struct device_offer {
  static constexpr std::size_t text_bytes_max = 96;
  using text = std::array<char, text_bytes_max>;  // cut at the first zero

  device_collectives choice = device_collectives::automatic;
  std::uint8_t available = 0;  // 0: `library` says why not
  text host{};
  text address{};
  text library{};
};

[[nodiscard]] device_offer::text offer_text(std::string_view from);
[[nodiscard]] std::string_view offer_text(const device_offer::text& from) noexcept;

struct collectives_path {
  bool direct = false;
  std::string why;  // for the log
};

// Shape: one offer a rank of the group. Errors: failed_precondition, where a rank insists on nccl
// and it cannot be.
[[nodiscard]] base::result<collectives_path> choose_path(std::span<const device_offer> offers);

}  // namespace troupe::engine
