// The first process of serve, generate and bench: becomes the supervisor of this node's ranks.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "cli/exit_code.hpp"
#include "cli/gang_flags.hpp"
#include "cli/http_listener.hpp"
#include "cli/invocation.hpp"

namespace troupe::cli {

struct gang_launch {
  const invocation& called;
  const model_flags& model;
  const gang_flags& gang;
  rank_seat seat;  // what every rank is told; rank and parent are filled in
  bool one_shot = false;
  // On node 0 of what serves; its invalid_argument is a usage error.
  std::function<base::result<http_listener>(const gang_topology&)> open_http = {};
  std::chrono::seconds drain_patience{100};
};

// Starts the ranks of this node and returns when they have ended: call it before any other thread
// exists. Prints the cause of anything but success on stderr.
[[nodiscard]] exit_code supervise(gang_launch launch);

}  // namespace troupe::cli
