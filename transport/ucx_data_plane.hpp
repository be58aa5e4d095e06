// The data plane between hosts over UCX: TCP, and InfiniBand or RoCE where the host has them.
//
// It protects nothing. UCX encrypts nothing, and whoever reaches its TCP port can write to this
// process's memory: only for a network that no one else is on. Everywhere else: the `tls` plane.
// Addresses travel over the control plane; there is no listener and no other rendezvous. A killed
// peer is noticed at once (TCP) and named; a frozen or cut-off one after 20 s or more, which is the
// supervisor's to notice. libucp is loaded, not linked (ucx_library.hpp).
//
//   TROUPE_TRY_VOID(transport::prepare_ucx_environment({.interface = "eth0"}));  // first in main()
//   TROUPE_TRY(plane, transport::open_ucx({.epoch = epoch, .rank = 0, .shape = shape}));
//   TROUPE_TRY(groups, plane->connect(addresses, std::chrono::seconds(10)));
#pragma once

#include "transport/data_plane.hpp"
#include "transport/message_collective.hpp"
#include "transport/ucx_environment.hpp"

#include <memory>

namespace troupe::transport {

struct ucx_options {
  message_options messages;
};

// One UCX context and worker, which end with the plane and its groups; the last of them to go gives
// its peers up to 20 ms to take its last messages, none after abort().
// Device and ports: prepare_ucx_environment(), whose call this needs.
// Errors: invalid_argument (no such seat), failed_precondition (no libucp, or no device named),
// unavailable (the device is not there, or all ports of the range are taken).
// Cost: 1 to 5 ms, one thread and some 10 descriptors of UCX's.
[[nodiscard]] base::result<std::unique_ptr<data_plane>> open_ucx(data_plane_seat seat,
                                                                 ucx_options options = {});

}  // namespace troupe::transport
