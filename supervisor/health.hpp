// What a node's supervisor says of itself over <state_dir>/run/<name>.socket: `troupe health`.
//
//   TROUPE_TRY(status, supervisor::ask_health({.state_dir = state_dir}));
//   return status.joined ? 0 : 1;
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::supervisor {

struct rank_status {
  base::rank_id rank;
  bool running = false;
  schemas::rank_phase phase = schemas::rank_phase::starting;
  base::epoch_id epoch;  // the one it serves in, else zero
  std::uint32_t restarts = 0;
  std::string detail;  // one line
};

struct health_status {
  bool joined = false;             // every rank of this node serves in the gang's current epoch
  std::string why;                 // one line; why not
  base::epoch_id epoch;            // zero when not joined
  std::vector<rank_status> ranks;  // of this node
};

// One word for a phase: "starting", "seeking_leader", ...
[[nodiscard]] const char* to_string(schemas::rank_phase phase) noexcept;

struct health_question {
  std::string state_dir;
  std::string name = {};  // empty: the only one that runs
  std::chrono::milliseconds patience{1000};
};

// Errors: not_found (no supervisor runs under this state_dir, or none of that name),
// failed_precondition (several run and none is named: their names), deadline_exceeded,
// invalid_argument (what answered is no supervisor).
[[nodiscard]] base::result<health_status> ask_health(const health_question& question);

}  // namespace troupe::supervisor
