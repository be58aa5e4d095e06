// The bytes of the TLS data plane: addresses, greetings, message headers. Little-endian, fixed
// sizes, no pointers; whatever comes in is checked before it is believed. Internal to transport/.
//
// On a connection, after the TLS handshake: the accepting rank's greeting, the dialling rank's
// greeting, the accepting rank's verdict; then messages both ways, each a header and its bytes.
// Greetings keep their first 12 bytes and their size in every version, so that two builds that do
// not fit can say so.
#pragma once

#include "base/error.hpp"
#include "transport/data_plane.hpp"
#include "transport/point_to_point.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace troupe::transport::tls_wire {

inline constexpr std::uint32_t protocol_version = 1;

// Where a rank listens.
struct endpoint {
  std::string host;  // numeric
  std::uint16_t port = 0;
};
[[nodiscard]] std::string to_string(const endpoint& at);
[[nodiscard]] data_plane_address encode(const endpoint& at);
// Errors: invalid_argument (what is wrong with the bytes; they are not quoted).
[[nodiscard]] base::result<endpoint> decode_endpoint(std::span<const std::uint8_t> bytes);

inline constexpr std::size_t greeting_bytes = 48;
struct greeting {
  std::uint32_t version = protocol_version;
  data_plane_seat seat;
};
[[nodiscard]] std::array<std::byte, greeting_bytes> encode(const greeting& from);
// Errors: invalid_argument (not a greeting, or numbers that cannot be). A greeting of another
// version decodes to the version alone.
[[nodiscard]] base::result<greeting> decode_greeting(
    std::span<const std::byte, greeting_bytes> bytes);

enum class verdict : std::uint32_t {
  welcome = 0,
  other_version = 1,
  other_epoch = 2,
  other_world = 3,   // tp_size or pp_size differ
  wrong_rank = 4,    // a rank that does not dial this one
  rank_is_here = 5,  // that rank has a connection already
};
inline constexpr std::size_t verdict_bytes = 16;
[[nodiscard]] std::array<std::byte, verdict_bytes> encode(verdict of);
[[nodiscard]] base::result<verdict> decode_verdict(std::span<const std::byte, verdict_bytes> bytes);

[[nodiscard]] std::string_view to_string(verdict of) noexcept;

// What `ours` thinks of a greeting, apart from the rank.
[[nodiscard]] verdict judge(const greeting& theirs, const data_plane_seat& ours) noexcept;
// The verdict on a greeting in words: "it is of epoch a/2, rank 1 of a/3: ...".
[[nodiscard]] std::string reason(verdict of, const greeting& theirs, const data_plane_seat& ours);

inline constexpr std::size_t header_bytes = 24;
struct header {
  std::uint64_t epoch_number = 0;
  std::uint64_t size = 0;
  message_tag tag;
  friend bool operator==(const header&, const header&) = default;
};
void encode(const header& of, std::span<std::byte, header_bytes> into) noexcept;
[[nodiscard]] header decode_header(std::span<const std::byte, header_bytes> bytes) noexcept;

}  // namespace troupe::transport::tls_wire
