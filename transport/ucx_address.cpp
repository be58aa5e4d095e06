#include "transport/ucx_address.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace troupe::transport {
namespace {

// magic, then little-endian: u16 format, u16 UCX version, u64 incarnation, u64 epoch number,
// u32 rank, u32 length, UCX's bytes, u64 checksum of all before it.
constexpr std::array<std::uint8_t, 4> magic = {'T', 'U', 'C', 'X'};
constexpr std::uint16_t format_version = 1;
constexpr std::size_t head_bytes = 4 + 2 + 2 + 8 + 8 + 4 + 4;
constexpr std::size_t tail_bytes = 8;

template <class Integer>
void put(std::vector<std::uint8_t>& bytes, Integer value) {
  for (std::size_t i = 0; i < sizeof value; ++i) {
    bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
}

// The caller has checked that the bytes are there.
template <class Integer>
Integer take(std::span<const std::uint8_t>& bytes) {
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i) {
    value = static_cast<Integer>(value | static_cast<Integer>(Integer{bytes[i]} << (8 * i)));
  }
  bytes = bytes.subspan(sizeof value);
  return value;
}

// Against accidents only. Source: Fowler, Noll, Vo: FNV-1a, 64 bits.
std::uint64_t checksum(std::span<const std::uint8_t> bytes) {
  std::uint64_t sum = 0xcbf29ce484222325ULL;
  for (const std::uint8_t byte : bytes) sum = (sum ^ byte) * 0x100000001b3ULL;
  return sum;
}

tl::unexpected<base::error> refuse(int rank, const std::string& what) {
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("the UCX address of rank {} {}", rank, what));
}

}  // namespace

base::result<data_plane_address> wrap_ucx_address(const ucx_address_owner& owner,
                                                  std::span<const std::uint8_t> worker_address) {
  const std::size_t total = head_bytes + worker_address.size() + tail_bytes;
  if (total > data_plane_address_bytes_max) {
    return base::fail(base::error_code::internal, "transport",
                      fmt::format("UCX has an address of {} bytes here, more than fits: name fewer "
                                  "devices in UCX_NET_DEVICES",
                                  worker_address.size()));
  }
  data_plane_address wrapped(magic.begin(), magic.end());
  wrapped.reserve(total);
  put(wrapped, format_version);
  put(wrapped, static_cast<std::uint16_t>(owner.ucx_version));
  put(wrapped, owner.epoch.incarnation);
  put(wrapped, owner.epoch.number);
  put(wrapped, static_cast<std::uint32_t>(owner.rank));
  put(wrapped, static_cast<std::uint32_t>(worker_address.size()));
  wrapped.insert(wrapped.end(), worker_address.begin(), worker_address.end());
  put(wrapped, checksum(wrapped));
  return wrapped;
}

base::result<std::vector<std::uint8_t>> unwrap_ucx_address(const ucx_address_owner& expected,
                                                           std::span<const std::uint8_t> wrapped) {
  const int rank = expected.rank;
  if (wrapped.size() > data_plane_address_bytes_max || wrapped.size() <= head_bytes + tail_bytes ||
      !std::equal(magic.begin(), magic.end(), wrapped.begin())) {
    return refuse(rank, fmt::format("is none ({} bytes): do all ranks use --data-plane ucx?",
                                    wrapped.size()));
  }
  std::span<const std::uint8_t> rest = wrapped.subspan(magic.size());
  if (const auto format = take<std::uint16_t>(rest); format != format_version) {
    return refuse(rank, fmt::format("has format {}, this build knows {}", format, format_version));
  }
  std::span<const std::uint8_t> tail = wrapped.last(tail_bytes);
  if (checksum(wrapped.first(wrapped.size() - tail_bytes)) != take<std::uint64_t>(tail)) {
    return refuse(rank, "is damaged: its checksum is wrong");
  }
  if (const unsigned version = take<std::uint16_t>(rest); version != expected.ucx_version) {
    return refuse(rank, fmt::format("is of UCX {}.{}, this rank has {}.{}: install one version",
                                    version / 1000, version % 1000, expected.ucx_version / 1000,
                                    expected.ucx_version % 1000));
  }
  const auto incarnation = take<std::uint64_t>(rest);
  const auto number = take<std::uint64_t>(rest);
  if (base::epoch_id{.incarnation = incarnation, .number = number} != expected.epoch) {
    return refuse(rank, fmt::format("is of epoch {:x}/{}, not of {:x}/{}", incarnation, number,
                                    expected.epoch.incarnation, expected.epoch.number));
  }
  if (const auto owner = take<std::uint32_t>(rest); owner != static_cast<std::uint32_t>(rank)) {
    return refuse(rank, fmt::format("is that of rank {}", owner));
  }
  if (const auto length = take<std::uint32_t>(rest); length != rest.size() - tail_bytes) {
    return refuse(rank, fmt::format("says {} bytes and has {}", length, rest.size() - tail_bytes));
  }
  std::vector<std::uint8_t> address(rest.begin(), rest.end() - tail_bytes);
  address.resize(address.size() + ucx_address_slack_bytes, 0);
  return address;
}

}  // namespace troupe::transport
