// One rank's way to the other ranks of its gang for one epoch: shared memory on one host, TLS or
// UCX between hosts. The control plane carries the addresses; a new epoch makes a new data plane.
//
// Life cycle: opened (it may listen now), address() told to the peers, connect() once with all
// addresses, then the groups it gave are used by one thread until abort(). Destroyed after them.
//
//   TROUPE_TRY(plane, transport::open_tls(seat, options));
//   TROUPE_TRY(groups, plane->connect(addresses, std::chrono::seconds(10)));
//   groups.tp->all_reduce_sum(seat.epoch, values);
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "transport/groups.hpp"

namespace troupe::transport {

// Which rank this is, of what gang, in which epoch.
struct data_plane_seat {
  base::epoch_id epoch;
  int rank = 0;
  world_shape shape;
};

// Opaque bytes, meaningful to the same kind of data plane only. From the network: untrusted.
using data_plane_address = std::vector<std::uint8_t>;
inline constexpr std::size_t data_plane_address_bytes_max = 16384;

struct data_plane_counters {
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t stale_messages = 0;  // of another epoch, dropped
};

class data_plane {
 public:
  data_plane() = default;
  data_plane(const data_plane&) = delete;
  data_plane& operator=(const data_plane&) = delete;
  virtual ~data_plane() = default;

  [[nodiscard]] virtual const data_plane_address& address() const noexcept = 0;

  // Connects to every peer and gives the rank's groups. `addresses` has one entry a rank of the
  // world; the own one is not looked at. Blocks; any thread, which then owns the groups (the first
  // collective may come from another thread if this one has ended its use).
  // Errors: unavailable (a peer does not answer in time: which), unauthenticated, invalid_argument
  // (malformed address), aborted.
  [[nodiscard]] virtual base::result<rank_groups> connect(
      std::span<const data_plane_address> addresses, std::chrono::milliseconds patience) = 0;

  // Ends connect() and every wait of the groups, here and as far as possible on the peers, within
  // 1 ms. Any thread, any time, also twice.
  virtual void abort() noexcept = 0;

  // Any thread.
  [[nodiscard]] virtual data_plane_counters counters() const noexcept = 0;
};

}  // namespace troupe::transport
