// The CAF shell of the leader: a detached actor that turns mail into events and carries steps out
// between its mails. No decisions. Internal to actors/leader.
#pragma once

#include <caf/all.hpp>

#include "actors/leader/leader_shell.hpp"

namespace troupe::actors {

using leader_mail_ptr = std::shared_ptr<leader_mail>;
using go_on_atom = caf::atom_constant<caf::atom("go_on")>;
using wake_atom = caf::atom_constant<caf::atom("wake")>;

// Lifetime: the shell outlives the actor. Mail: leader_mail_ptr.
[[nodiscard]] caf::behavior leader_actor(caf::event_based_actor* self, leader_shell* shell);

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::leader_mail_ptr)
