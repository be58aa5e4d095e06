// Connections to other nodes' supervisors: dialling, accepting, TLS, framing. It decides nothing:
// supervisor_machine says whom to accept and when to dial, and is told what happens.
//
// A message is its length as four little-endian bytes and schemas::encode(). A connection whose
// peer has not shown who it is within 2 s is dropped, and there are at most 8 of those.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/process.hpp"
#include "base/tls.hpp"
#include "schemas/supervisor_message.hpp"
#include "supervisor/events.hpp"
#include "supervisor/node_stream.hpp"
#include "supervisor/poll_set.hpp"
#include "supervisor/resolver.hpp"
#include "supervisor/supervisor.hpp"

namespace troupe::supervisor {

class node_link {
 public:
  static constexpr std::chrono::milliseconds introduction_patience{2000};
  static constexpr std::size_t strangers_max = 8;

  // Errors: invalid_argument (credentials).
  [[nodiscard]] static base::result<std::unique_ptr<node_link>> make(
      node_link_options options, const std::optional<base::gang_credentials>& credentials);

  void dial();
  void tell(connection_id connection, const schemas::supervisor_message& message);
  void accept(connection_id connection);
  void close(connection_id connection);

  void watch(poll_set& polls);
  void expire(base::steady_time now);
  [[nodiscard]] std::optional<base::steady_time> next_due() const;
  // What happened since the last call, in order.
  [[nodiscard]] std::vector<machine_event> take_events() { return std::exchange(events_, {}); }
  // The process that looks up a name, if there is one.
  [[nodiscard]] std::optional<pid_t> child() const { return resolving_.child(); }

 private:
  struct connection {
    node_stream stream;
    bool dialled = false;
    bool introduced = false;
    base::steady_time due;  // of the introduction
  };
  node_link(node_link_options options, std::optional<base::tls_context> context)
      : options_(std::move(options)), context_(std::move(context)) {}

  void take_stranger();
  void take_addresses();
  void dial_next();
  void not_reached(const std::string& why);
  void turn(connection_id id);
  void drop(connection_id id, const std::string& why);
  base::result<void> add(base::fd socket, bool dialled);

  node_link_options options_;
  std::optional<base::tls_context> context_;  // none: plain TCP
  std::map<connection_id, connection> connections_;
  std::uint64_t next_id_ = 1;
  std::vector<machine_event> events_;
  // Dialling: a name is looked up, then its addresses are tried one after the other.
  resolver resolving_;
  std::vector<std::string> addresses_;  // still to be tried
  base::fd connecting_;
  std::string connecting_to_;
  base::steady_time connecting_due_;
};

}  // namespace troupe::supervisor
