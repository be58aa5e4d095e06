// What this build puts before the bytes of each UCX active message. Internal to the UCX data plane.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace troupe::transport {

enum class ucx_message_kind : std::uint8_t {
  data = 1,
  hello = 2,        // the sender has an endpoint to this rank
  acknowledge = 3,  // carries `consumed` when no message of its own does
  abort = 4,        // the epoch is over
  goodbye = 5,      // the sender leaves after `sequence` messages
};

// In the byte order of the machines it runs on: all little-endian.
struct ucx_header {
  std::uint64_t incarnation = 0;  // of the epoch
  std::uint64_t epoch_number = 0;
  std::uint32_t sequence = 0;  // messages of data sent to this rank before
  std::uint32_t consumed = 0;  // messages of data taken from this rank
  std::uint32_t number = 0;    // of the operation, as in message_tag
  ucx_message_kind what = ucx_message_kind::data;
  std::uint8_t source = 0;  // rank of the sender
  std::uint8_t kind = 0;    // an `operation`
  std::uint8_t round = 0;
  std::uint8_t group = 0;
  std::uint8_t version = 1;
  std::uint8_t reserved[6] = {};
};
static_assert(sizeof(ucx_header) == 40 && std::is_trivially_copyable_v<ucx_header>);
static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint8_t ucx_wire_version = 1;
inline constexpr unsigned ucx_message_id = 1;

// Messages a rank may send to one peer before that has taken them.
inline constexpr std::uint32_t ucx_window_messages = 16;
static_assert(std::has_single_bit(ucx_window_messages));

// Up to here a message is sent at once and copied on arrival; a larger one is announced and fetched
// into its place. Fetching saves copies and costs a round trip: over loopback TCP 8 KiB took 5.1 us
// at once and 12 us fetched, 32 KiB 9 and 16, 256 KiB 47 and 53.
inline constexpr std::size_t ucx_eager_bytes_max = std::size_t{32} << 10;

// Bytes sent at once to one peer that has not taken them: what a slow rank holds for each fast one.
// More would not fit into a fresh TCP connection while its receiver computes (64 KiB there, and
// as much here), and what UCX could not give to the kernel leaves only with a rank's next call.
inline constexpr std::size_t ucx_unread_bytes_max = std::size_t{64} << 10;

}  // namespace troupe::transport
