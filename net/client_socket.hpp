// A client's connection as it comes out of the kernel's queue: accepted, set up, and who it is.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "net/http_server.hpp"

namespace troupe::net {

struct client_socket {
  base::fd descriptor = {};  // non-blocking; none when nobody waits
  std::string address = {};  // numeric, without the port
  bool loopback = false;
  bool exhausted = false;  // somebody waits, but this process has no room for a descriptor
};

// Takes the next waiting connection of a non-blocking listening socket. Never blocks.
[[nodiscard]] client_socket accept_client(int listening, const http_limits& limits);

}  // namespace troupe::net
