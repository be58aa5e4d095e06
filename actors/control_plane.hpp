// What both ends of the control plane share: actor systems that speak mutual TLS and nothing else,
// and what travels between them, bytes of schemas::control_message. Internal to actors/.
//
// The framework connects with a blocking connect(2) and ends the process over a missing key file,
// so credentials are checked before it sees them and a peer is probed before it dials.
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/control_plane_options.hpp"
#include "base/error.hpp"
#include "base/tls.hpp"
#include "schemas/codec.hpp"

namespace troupe::actors {

using schemas::wire_bytes;  // std::vector<std::byte> would cost twenty times as much in CAF 0.17

using control_wake_atom = caf::atom_constant<caf::atom("ctl_wake")>;

// Few threads, no files read but the credentials, silent.
struct control_plane_config : caf::actor_system_config {
  explicit control_plane_config(const control_plane_options& options);  // with the middleman
  control_plane_config();  // for actors of this process only
};

// Reads the three files and tries them. Errors: failed_precondition (which file cannot be read),
// invalid_argument (what is wrong with it).
[[nodiscard]] base::result<base::gang_credentials> read_credentials(
    const control_plane_options& options);

// Makes `whom` what a peer reaches at host:port; gives the port. Errors: unavailable.
[[nodiscard]] base::result<std::uint16_t> publish_control(const caf::actor& whom,
                                                          const std::string& numeric_host,
                                                          std::uint16_t port);

struct control_callbacks {
  // From a thread of the connection's system; must not block.
  std::function<void(wire_bytes)> received;
  std::function<void(std::string reason)> down;  // at most once
};

// One connection of a worker to its leader: an actor system of its own, since the framework never
// lets go of a node it once knew.
class control_connection {
 public:
  // Resolves, probes, authenticates; each within options.dial_patience. Blocks.
  // Errors: unavailable, deadline_exceeded, not_found, unauthenticated, failed_precondition.
  [[nodiscard]] static base::result<std::unique_ptr<control_connection>> open(
      const control_plane_options& options, const std::string& host, std::uint16_t port,
      control_callbacks callbacks);
  ~control_connection();
  control_connection(const control_connection&) = delete;
  control_connection& operator=(const control_connection&) = delete;

  void send(wire_bytes bytes);

 private:
  explicit control_connection(const control_plane_options& options);

  control_plane_config config_;
  caf::actor_system system_;
  caf::actor link_;
};

// The actor at the worker's end of a connection: relays between the leader and the callbacks.
// Mail: outgoing (ours), wire_bytes (the leader's).
struct outgoing {
  wire_bytes bytes;
};
[[nodiscard]] caf::behavior control_link(caf::event_based_actor* self, caf::actor leader,
                                         std::shared_ptr<const control_callbacks> callbacks);

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::outgoing)
