// The CAF shell of the gang's machine: published by the control plane, talks to the links of the
// workers. Internal to actors/.
#pragma once

#include <map>
#include <memory>

#include "actors/control_plane.hpp"
#include "actors/gang/gang_host.hpp"
#include "actors/gang/gang_machine.hpp"

namespace troupe::actors {

// A peer is known from its first message until the framework says that it is gone; one that was
// dropped is deaf and mute in between.
struct gang_peer {
  connection_id id;
  caf::actor link;
  bool dropped = false;
};

struct gang_shell {
  std::unique_ptr<gang_machine> machine;
  std::map<caf::actor_addr, gang_peer> peers;
  std::map<connection_id, caf::actor_addr> addresses;
  std::uint64_t connections = 0;
  std::uint64_t wakes = 0;  // the last one asked for counts
};

// Mail: gang::event (ours), wire_bytes (the links'). Lifetime: the host outlives the actor.
[[nodiscard]] caf::behavior gang_actor(caf::stateful_actor<gang_shell>* self,
                                       const gang_options& options, gang_host* host);

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::gang::event)
