// The first process of serve, generate and bench: becomes the supervisor of this node's ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "cli/exit_code.hpp"
#include "cli/gang_flags.hpp"
#include "cli/invocation.hpp"

namespace troupe::cli {

struct gang_launch {
  const invocation& called;
  const model_flags& model;
  const gang_flags& gang;
  rank_seat seat;  // what every rank is told; rank and parent are filled in
  bool one_shot = false;
  base::fd http = {};  // rank 0's listening socket, on node 0
  std::string url = {};
  std::chrono::seconds drain_patience{100};
};

// Starts the ranks of this node and returns when they have ended: call it before any other thread
// exists. Prints the cause of anything but success on stderr.
[[nodiscard]] exit_code supervise(gang_launch launch);

}  // namespace troupe::cli
