// A rank's UCX address as it travels: UCX's own bytes, which only UCX can read, in a wrapper of
// ours that says whose they are. Internal to the UCX data plane.
//
// The wrapper finds what is truncated, mixed up or of another epoch or release. It cannot make
// bytes of a hostile rank safe: UCX trusts the address it is given as it trusts its network, so
// addresses come over the control plane, from ranks that have proven who they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "transport/data_plane.hpp"

namespace troupe::transport {

struct ucx_address_owner {
  base::epoch_id epoch;
  int rank = 0;
  unsigned ucx_version = 0;  // major * 1000 + minor
};

// UCX reads an address without knowing its length. Behind bytes that mislead it, it finds zeros: it
// gives up after 128 transports of at most some 300 bytes each.
inline constexpr std::size_t ucx_address_slack_bytes = std::size_t{64} << 10;

// Errors: internal (larger than data_plane_address_bytes_max).
[[nodiscard]] base::result<data_plane_address> wrap_ucx_address(
    const ucx_address_owner& owner, std::span<const std::uint8_t> worker_address);

// UCX's bytes, followed by ucx_address_slack_bytes of zeros.
// Errors: invalid_argument, which names `expected.rank` and what is wrong.
[[nodiscard]] base::result<std::vector<std::uint8_t>> unwrap_ucx_address(
    const ucx_address_owner& expected, std::span<const std::uint8_t> wrapped);

}  // namespace troupe::transport
