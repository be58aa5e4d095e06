// TCP sockets of the host: listening, resolving and connecting under a deadline. All descriptors
// are close-on-exec; those that connect() gives are non-blocking with TCP_NODELAY.
//
//   TROUPE_TRY(http, base::listen_on({.host = "127.0.0.1", .port_first = 8000}));
//   TROUPE_TRY(peer, base::connect_to(http.host, http.port, std::chrono::seconds(2)));
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

struct listen_options {
  std::string host;              // numeric address or a name
  std::uint16_t port_first = 0;  // 0: any free port
  std::uint16_t port_last = 0;   // 0: only port_first; else the first free port of the range
  int backlog = 1024;
};

struct listening_socket {
  fd descriptor;
  std::string host;  // numeric
  std::uint16_t port = 0;
};

// Binds with SO_REUSEADDR and listens. Errors: invalid_argument (not an address of this host),
// unavailable (port or whole range in use), permission_denied: the line names host and port.
[[nodiscard]] result<listening_socket> listen_on(const listen_options& options);

// Numeric addresses of a name, in the resolver's order. Blocks as long as the resolver does: not
// for a thread with a deadline. Errors: not_found (no such name yet), unavailable (no resolver).
[[nodiscard]] result<std::vector<std::string>> resolve(const std::string& host);

// Errors: unavailable (refused, unreachable), deadline_exceeded, invalid_argument (not numeric).
[[nodiscard]] result<fd> connect_to(const std::string& numeric_host, std::uint16_t port,
                                    std::chrono::milliseconds patience);

// The two halves of connect_to(), for callers that poll several sockets at once. begin_connect()
// gives a socket that becomes writable when the outcome is known; outcome_of() then tells it.
// Errors: as connect_to().
[[nodiscard]] result<fd> begin_connect(const std::string& numeric_host, std::uint16_t port);
[[nodiscard]] result<void> outcome_of(const fd& connecting, const std::string& numeric_host,
                                      std::uint16_t port);

// "host:port", an IPv6 address in brackets: as messages, URLs and Host fields have it.
[[nodiscard]] std::string host_and_port(std::string_view host, unsigned port);

// "host:port" of the other end, for messages; "a peer that is gone" once it is not known any more.
[[nodiscard]] std::string peer_of(int socket);

// The local numeric address from which `numeric_host` is reached; needs no connection.
[[nodiscard]] result<std::string> local_address_towards(const std::string& numeric_host);

}  // namespace troupe::base
