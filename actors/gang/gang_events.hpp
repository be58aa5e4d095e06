// What happens to a gang (events) and what its machine has done about it (effects).
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "actors/machine.hpp"
#include "base/ids.hpp"
#include "schemas/control_message.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::actors::gang {

// --- events -------------------------------------------------------------------------------------

struct started {};

struct received {
  connection_id connection;
  schemas::control_message message;
};
struct connection_down {
  connection_id connection;
  std::string reason;
};

using rank_lost = schemas::rank_lost;

// The supervisor has handed the epoch's segment to every local rank.
struct segment_ready {
  base::epoch_id epoch;
};
// From the leader, after serve: a real decode step went through every rank.
struct canary_done {
  base::epoch_id epoch;
};
// From the leader at any time: the epoch is broken (a collective failed, the canary did).
struct epoch_failed {
  base::epoch_id epoch;
  std::string reason;
};

using drain = schemas::drain;
// From the leader, after drain: no request is open.
struct drained {};

// At or after a wake_at; any other time does no harm.
struct timer {};

using event = std::variant<started, received, connection_down, rank_lost, segment_ready,
                           canary_done, epoch_failed, drain, drained, timer>;

// --- effects ------------------------------------------------------------------------------------

struct send {
  connection_id connection;
  schemas::control_message message;
};
// No connection_down follows.
struct drop {
  connection_id connection;
};

// Ask the supervisor for the epoch's segment: segment_ready follows.
struct want_segment {
  base::epoch_id epoch;
  std::int32_t ranks = 0;
};
// Every rank is in its loop: run the canary (canary_done or epoch_failed), then serve requests.
struct serve {
  base::epoch_id epoch;
};
// Exactly once after each serve. Aborts rank 0's own plane.
struct stop_serving {
  base::epoch_id epoch;
  std::string reason;
};

struct log {
  std::string line;
};

// The only timer: a later one replaces an earlier one.
struct wake_at {
  time_point when;
};

// The last effect of a machine. exit_code 0: drained.
using give_up = schemas::give_up;

using effect = std::variant<send, drop, want_segment, serve, stop_serving, log, wake_at, give_up>;

}  // namespace troupe::actors::gang
