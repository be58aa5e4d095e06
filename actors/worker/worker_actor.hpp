// The CAF shell of a worker's machine, and the actor that dials for it. Internal to actors/.
//
// The worker lives as long as the process and in a system without network; each connection is a
// system of its own, kept by the dialer, which blocks while it dials and so has a thread of its
// own.
#pragma once

#include "actors/control_plane.hpp"
#include "actors/worker/worker_host.hpp"
#include "actors/worker/worker_machine.hpp"

namespace troupe::actors {

struct worker_shell {
  std::unique_ptr<worker_machine> machine;
  std::uint64_t wakes = 0;  // the last one asked for counts
};

// Mail: worker::event. To the dialer: worker::dial, worker::hang_up, outgoing.
// Lifetime: the host outlives the actor.
[[nodiscard]] caf::behavior worker_actor(caf::stateful_actor<worker_shell>* self,
                                         const worker_options& options, worker_host* host,
                                         caf::actor dialer);

struct dialer_shell {
  std::unique_ptr<control_connection> connection;
};

// Spawned detached. Answers a worker::dial with control_up or control_down to its sender.
[[nodiscard]] caf::behavior dialer_actor(caf::stateful_actor<dialer_shell>* self,
                                         const control_plane_options& options);

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::worker::event)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::worker::dial)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::worker::hang_up)
