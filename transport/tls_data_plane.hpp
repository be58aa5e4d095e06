// The data plane between hosts that needs no trust in the network: TLS 1.3 between every pair of
// ranks, each side with a certificate of the gang's authority. The default between hosts.
//
// A rank listens on a free port of its range from open_tls() until connect() has returned. The
// address tells host and port and is no secret: who has no certificate of the gang is turned away,
// and costs the gang nothing but a handshake.
//
//   TROUPE_TRY(plane, transport::open_tls(seat, {.credentials = &ours, .host = "10.0.0.3",
//                                                .port_first = 8480, .port_last = 8495}));
#pragma once

#include "base/tls.hpp"
#include "transport/data_plane.hpp"
#include "transport/message_collective.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace troupe::transport {

struct tls_data_plane_options {
  const base::gang_credentials* credentials = nullptr;  // read in open_tls() only
  std::string host;              // an address of this host that the peers reach; not a wildcard
  std::uint16_t port_first = 0;  // 0: any free port
  std::uint16_t port_last = 0;   // 0: only port_first. Several ranks and epochs share a range.
  // How long a wait looks at its sockets before it sleeps in poll(2). A sleep and its waking cost
  // some 15 us on each side of a message; looking costs a core that other ranks may need, so each
  // look gives way to them.
  std::chrono::microseconds spin{50};
  message_options messages = {};
};

// Errors: invalid_argument (host, credentials), unavailable (no free port), permission_denied.
[[nodiscard]] base::result<std::unique_ptr<data_plane>> open_tls(data_plane_seat seat,
                                                                 tls_data_plane_options options);

}  // namespace troupe::transport
