// What a node's supervisor and its ranks tell each other over a socket pair, and supervisors of two
// nodes over TLS.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "base/ids.hpp"

namespace troupe::schemas {

// --- supervisor to rank -------------------------------------------------------------------------

// Where rank 0's control plane listens, known once it does. Empty host: nowhere at the moment.
struct control_plane_at {
  std::string host;
  std::uint16_t port = 0;
};

// The shared-memory segment of an epoch; the descriptor travels beside the message.
struct segment {
  base::epoch_id epoch;
};

// A rank of the gang is gone: every rank leaves the epoch it is in. Also sent to rank 0's gang.
struct rank_lost {
  base::rank_id rank;
  std::string cause;           // e.g. "killed by signal 9", "stopped", "node 1: no heartbeat"
  std::uint32_t restarts = 0;  // of that rank so far
};

// SIGTERM came: finish what is open, then exit 0.
struct drain {
  std::uint64_t patience_ms = 0;
};

struct ping {
  std::uint64_t number = 0;
};

// --- rank to supervisor -------------------------------------------------------------------------

struct pong {
  std::uint64_t number = 0;
};

// Rank 0: its control plane listens here.
struct control_plane_listens {
  std::string host;
  std::uint16_t port = 0;
};

// Rank 0: make a segment for this epoch and hand it to every local rank.
struct segment_wanted {
  base::epoch_id epoch;
  std::int32_t ranks = 0;
};

// What this rank is doing, for `troupe health` and the supervisor's own stand-in answers.
enum class rank_phase : std::uint8_t {
  starting,
  seeking_leader,
  loading,
  waiting_for_ranks,
  connecting,
  serving,
  draining,
};
struct phase_changed {
  rank_phase phase = rank_phase::starting;
  base::epoch_id epoch;  // the one it serves in, else zero
  std::string detail;    // one line
};

// A line for stdout, a JSON object: the supervisor is the only one that writes there.
struct announce {
  std::string json;
};

// This rank cannot go on and a restart would not help: the supervisor ends with this code.
struct give_up {
  std::int32_t exit_code = 1;
  std::string reason;
};

// --- supervisor to supervisor -------------------------------------------------------------------

// Every 100 ms in both directions; the first one introduces the node.
struct heartbeat {
  std::uint32_t protocol = 0;
  std::string build_id;
  std::int32_t node_rank = 0;
  std::int32_t nnodes = 0;
  std::uint64_t number = 0;
};

struct supervisor_message {
  std::variant<control_plane_at, segment, rank_lost, drain, ping, pong, control_plane_listens,
               segment_wanted, phase_changed, announce, give_up, heartbeat>
      body;
};

}  // namespace troupe::schemas
