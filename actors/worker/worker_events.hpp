// What happens to a rank's worker (events) and what it has done about it (effects).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "actors/machine.hpp"
#include "base/error.hpp"
#include "base/ids.hpp"
#include "schemas/control_message.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::actors::worker {

// --- events -------------------------------------------------------------------------------------

struct started {};

// Where the leader's control plane listens: from --leader, or from the supervisor on one host.
struct leader_at {
  std::string host;  // a name or a numeric address
  std::uint16_t port = 0;
};
struct leader_unknown {};  // the supervisor says: nowhere at the moment

// `dial` is that of the effect; what comes from an earlier one is dropped.
struct control_up {
  std::uint64_t dial = 0;
};
struct control_down {  // also: it never came up
  std::uint64_t dial = 0;
  std::string reason;
};
struct received {
  std::uint64_t dial = 0;
  schemas::control_message message;
};

// `load` is that of the effect; each gets exactly one of the two, a replaced one load_failed.
struct weights_loaded {
  std::uint64_t load = 0;
  std::array<std::uint8_t, 32> share_digest{};
};
struct load_failed {
  std::uint64_t load = 0;
  base::error error;  // retryable: it is tried again
};
struct load_progress {
  std::uint64_t load = 0;
  std::uint64_t bytes = 0;
  std::uint64_t total_bytes = 0;
};

// open_plane gets exactly one plane_opened or plane_failed, connect_plane exactly one
// plane_connected or plane_failed, start_loop exactly one loop_ended: also after abort_plane.
struct plane_opened {
  base::epoch_id epoch;
  std::vector<std::uint8_t> address;
};
struct plane_connected {
  base::epoch_id epoch;
};
struct plane_failed {
  base::epoch_id epoch;
  std::string reason;
};
struct loop_ended {
  base::epoch_id epoch;
  std::string reason;
};

using rank_lost = schemas::rank_lost;
using drain = schemas::drain;

// At or after a wake_at; any other time does no harm.
struct timer {};

using event = std::variant<started, leader_at, leader_unknown, control_up, control_down, received,
                           weights_loaded, load_failed, load_progress, plane_opened,
                           plane_connected, plane_failed, loop_ended, rank_lost, drain, timer>;

// --- effects ------------------------------------------------------------------------------------

// Resolve, connect, authenticate: control_up or control_down follows. Replaces an earlier one.
struct dial {
  std::uint64_t dial = 0;
  std::string host;
  std::uint16_t port = 0;
};
struct hang_up {};
struct send {
  schemas::control_message message;
};

// Packs the weights for an instruction path. Replaces a load in progress and weights packed before.
struct load {
  std::uint64_t load = 0;
  std::string instruction_path;
};

struct open_plane {
  base::epoch_id epoch;
};
struct connect_plane {
  base::epoch_id epoch;
  std::vector<std::vector<std::uint8_t>> addresses;  // by rank
};
// Carry out the leader's plans (rank 0: let the leader drive the engine) until it ends.
struct start_loop {
  base::epoch_id epoch;
};
// Ends whatever is going on in the epoch and lets go of its plane.
struct abort_plane {
  base::epoch_id epoch;
  std::string reason;
};

struct log {
  std::string line;
};
// For the supervisor.
using phase = schemas::phase_changed;

// The only timer: a later one replaces an earlier one.
struct wake_at {
  time_point when;
};

// The last effect of a machine. exit_code 0: drained.
using give_up = schemas::give_up;

using effect = std::variant<dial, hang_up, send, load, open_plane, connect_plane, start_loop,
                            abort_plane, log, phase, wake_at, give_up>;

}  // namespace troupe::actors::worker
