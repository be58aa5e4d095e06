#include "transport/tls_wire.hpp"

#include "base/check.hpp"
#include "base/socket.hpp"
#include "transport/arguments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <string_view>

namespace troupe::transport::tls_wire {
namespace {

constexpr std::string_view greeting_magic = "trp-tls\n";
constexpr std::string_view verdict_magic = "trp-say\n";
// Address: version, port, length of the host, host. The longest numeric address, IPv6 with a scope,
// has 39 + 1 + 15 characters.
constexpr std::uint8_t address_version = 1;
constexpr std::size_t address_head_bytes = 4;
constexpr std::size_t host_bytes_max = 55;

tl::unexpected<base::error> refuse(std::string message) {
  return base::fail(base::error_code::invalid_argument, "transport", std::move(message));
}

template <std::unsigned_integral Integer>
void put(std::span<std::byte> into, std::size_t at, Integer value) noexcept {
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    into[at + i] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i));
  }
}

template <std::unsigned_integral Integer>
Integer get(std::span<const std::byte> from, std::size_t at) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value |= std::to_integer<std::uint64_t>(from[at + i]) << (8 * i);
  }
  return static_cast<Integer>(value);
}

void put_text(std::span<std::byte> into, std::string_view text) noexcept {
  const auto bytes = std::as_bytes(std::span(text));
  std::copy(bytes.begin(), bytes.end(), into.begin());
}

bool starts_with(std::span<const std::byte> bytes, std::string_view text) noexcept {
  const auto expected = std::as_bytes(std::span(text));
  return std::equal(expected.begin(), expected.end(), bytes.begin());
}

}  // namespace

std::string to_string(const endpoint& at) { return base::host_and_port(at.host, at.port); }

data_plane_address encode(const endpoint& at) {
  TROUPE_CHECK(!at.host.empty() && at.host.size() <= host_bytes_max);
  data_plane_address bytes(address_head_bytes + at.host.size());
  bytes[0] = address_version;
  bytes[1] = static_cast<std::uint8_t>(at.port & 0xff);
  bytes[2] = static_cast<std::uint8_t>(at.port >> 8);
  bytes[3] = static_cast<std::uint8_t>(at.host.size());
  std::copy(at.host.begin(), at.host.end(), bytes.begin() + address_head_bytes);
  return bytes;
}

base::result<endpoint> decode_endpoint(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return refuse("the address is empty");
  if (bytes[0] != address_version) {
    return refuse(
        fmt::format("the address has version {}, this build knows {}", bytes[0], address_version));
  }
  if (bytes.size() < address_head_bytes || bytes.size() != address_head_bytes + bytes[3]) {
    return refuse(fmt::format("the address is cut or padded: {} bytes", bytes.size()));
  }
  const auto host = bytes.subspan(address_head_bytes);
  const auto port = static_cast<std::uint16_t>(bytes[1] | (bytes[2] << 8));
  const bool printable = std::all_of(host.begin(), host.end(),
                                     [](std::uint8_t byte) { return byte > 32 && byte < 127; });
  if (host.empty() || host.size() > host_bytes_max || !printable || port == 0) {
    return refuse("the address holds no host and port");
  }
  return endpoint{.host = std::string(host.begin(), host.end()), .port = port};
}

std::array<std::byte, greeting_bytes> encode(const greeting& from) {
  std::array<std::byte, greeting_bytes> bytes{};
  put_text(bytes, greeting_magic);
  put(bytes, 8, from.version);
  put(bytes, 12, static_cast<std::uint32_t>(from.seat.rank));
  put(bytes, 16, from.seat.epoch.incarnation);
  put(bytes, 24, from.seat.epoch.number);
  put(bytes, 32, static_cast<std::uint32_t>(from.seat.shape.tp_size));
  put(bytes, 36, static_cast<std::uint32_t>(from.seat.shape.pp_size));
  return bytes;
}

base::result<greeting> decode_greeting(std::span<const std::byte, greeting_bytes> bytes) {
  if (!starts_with(bytes, greeting_magic)) return refuse("it does not greet as a rank does");
  greeting from{.version = get<std::uint32_t>(bytes, 8), .seat = {}};
  if (from.version != protocol_version) return from;
  const auto rank = get<std::uint32_t>(bytes, 12);
  const auto tp_size = get<std::uint32_t>(bytes, 32);
  const auto pp_size = get<std::uint32_t>(bytes, 36);
  constexpr std::uint32_t size_max = group_size_max;
  if (tp_size == 0 || pp_size == 0 || tp_size > size_max || pp_size > size_max ||
      rank >= tp_size * pp_size) {
    return refuse("its greeting names a rank or sizes that cannot be");
  }
  from.seat = {
      .epoch = {.incarnation = get<std::uint64_t>(bytes, 16),
                .number = get<std::uint64_t>(bytes, 24)},
      .rank = static_cast<int>(rank),
      .shape = {.tp_size = static_cast<int>(tp_size), .pp_size = static_cast<int>(pp_size)}};
  return from;
}

std::array<std::byte, verdict_bytes> encode(verdict of) {
  std::array<std::byte, verdict_bytes> bytes{};
  put_text(bytes, verdict_magic);
  put(bytes, 8, protocol_version);
  put(bytes, 12, static_cast<std::uint32_t>(of));
  return bytes;
}

base::result<verdict> decode_verdict(std::span<const std::byte, verdict_bytes> bytes) {
  const auto value = get<std::uint32_t>(bytes, 12);
  if (!starts_with(bytes, verdict_magic) ||
      value > static_cast<std::uint32_t>(verdict::rank_is_here)) {
    return refuse("it answers what no rank answers");
  }
  return static_cast<verdict>(value);
}

std::string_view to_string(verdict of) noexcept {
  switch (of) {
    case verdict::welcome:
      return "welcome";
    case verdict::other_version:
      return "another version of the data plane";
    case verdict::other_epoch:
      return "another epoch";
    case verdict::other_world:
      return "another tp_size or pp_size";
    case verdict::wrong_rank:
      return "not a rank that dials it";
    case verdict::rank_is_here:
      return "that rank is connected already";
  }
  return "no reason";
}

verdict judge(const greeting& theirs, const data_plane_seat& ours) noexcept {
  if (theirs.version != protocol_version) return verdict::other_version;
  if (theirs.seat.epoch != ours.epoch) return verdict::other_epoch;
  if (theirs.seat.shape.tp_size != ours.shape.tp_size ||
      theirs.seat.shape.pp_size != ours.shape.pp_size) {
    return verdict::other_world;
  }
  return verdict::welcome;
}

std::string reason(verdict of, const greeting& theirs, const data_plane_seat& ours) {
  const data_plane_seat& seat = theirs.seat;
  switch (of) {
    case verdict::welcome:
      return "it is welcome";
    case verdict::other_version:
      return fmt::format(
          "it speaks version {} of the data plane, rank {} version {}: run the same "
          "build everywhere",
          theirs.version, ours.rank, protocol_version);
    case verdict::other_epoch:
      return fmt::format("it is of epoch {:x}/{}, rank {} of {:x}/{}: one of them is out of date",
                         seat.epoch.incarnation, seat.epoch.number, ours.rank,
                         ours.epoch.incarnation, ours.epoch.number);
    case verdict::other_world:
      return fmt::format("its gang has tp_size {} and pp_size {}, that of rank {} {} and {}",
                         seat.shape.tp_size, seat.shape.pp_size, ours.rank, ours.shape.tp_size,
                         ours.shape.pp_size);
    case verdict::wrong_rank:
      return fmt::format("it says that it is rank {}, which does not belong there", seat.rank);
    case verdict::rank_is_here:
      return fmt::format("rank {} is connected already", seat.rank);
  }
  return "it is refused";
}

void encode(const header& of, std::span<std::byte, header_bytes> into) noexcept {
  put(into, 0, of.epoch_number);
  put(into, 8, of.size);
  put(into, 16, of.tag.number);
  put(into, 20, static_cast<std::uint8_t>(of.tag.kind));
  put(into, 21, of.tag.round);
  put(into, 22, of.tag.group);
  put(into, 23, std::uint8_t{0});
}

header decode_header(std::span<const std::byte, header_bytes> bytes) noexcept {
  return {.epoch_number = get<std::uint64_t>(bytes, 0),
          .size = get<std::uint64_t>(bytes, 8),
          .tag = {.kind = static_cast<operation>(get<std::uint8_t>(bytes, 20)),
                  .round = get<std::uint8_t>(bytes, 21),
                  .group = get<std::uint8_t>(bytes, 22),
                  .number = get<std::uint32_t>(bytes, 16)}};
}

}  // namespace troupe::transport::tls_wire
