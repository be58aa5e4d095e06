// The first process of a gang on a node: starts every local rank as a process, restarts the ones
// that are lost, tells every rank of a loss, and is the last to go. One thread, no model.
//
// Life cycle: run() before any other thread exists (it blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP
// in the calling thread, and its children die with that thread). It returns when the gang has
// ended; by then no child is left.
//
//   supervisor::options options{.command_of = arguments_of_rank, .world_size = 2};
//   TROUPE_TRY(end, supervisor::run(std::move(options), log));
//   return end.exit_code;
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/tls.hpp"
#include "supervisor/restart_policy.hpp"

namespace troupe::supervisor {

// How a rank's process is started. The process calls base::die_with_parent() first thing.
struct rank_command {
  std::string program = "/proc/self/exe";
  std::vector<std::string> arguments;    // the first is the program's name
  std::vector<std::string> environment;  // NAME=value entries beside the supervisor's own
};

// The numbers under which a rank finds what it inherits; all others are closed. stdin is
// /dev/null and stdout is stderr, except for rank 0 of a one-shot command, which keeps both.
struct rank_descriptors {
  static constexpr int channel = 3;      // SOCK_SEQPACKET, schemas/supervisor_message.hpp
  static constexpr int vitals = 4;       // one page, base::rank_vitals, to be mapped shared
  static constexpr int certificate = 5;  // with options.credentials: base::credential_files
  static constexpr int key = 6;
  static constexpr int authority = 7;
  static constexpr int listening = 8;  // rank 0 with options.http; non-blocking
};

// The segment of one epoch. `abort` ends every wait in it; it may be called more than once.
struct made_segment {
  base::fd descriptor;
  std::function<void()> abort;
};
using segment_maker = std::function<base::result<made_segment>(base::epoch_id, int ranks)>;

// The connection between the supervisors of several nodes. Node n holds the ranks
// [n * world_size / nnodes, (n + 1) * world_size / nnodes). Node 0 listens, the others dial.
struct node_link_options {
  int node_rank = 0;
  int nnodes = 1;
  // Node 0: a listening socket (base::listen_on), on the last port of --data-plane-ports.
  base::fd listening = {};
  // The others: name or address of node 0's machine, and that port.
  std::string leader_host = {};
  std::uint16_t leader_port = 0;
  std::string build_id = {};  // compared at the introduction
};

struct options {
  std::function<rank_command(base::rank_id)> command_of;
  int world_size = 1;
  // None: all ranks of the world are here.
  std::optional<node_link_options> link = {};

  base::fd http = {};    // rank 0's listening socket; none: nothing is served
  std::string url = {};  // of `http`, for the first line on stdout
  // Sealed and inherited by every rank; the node link is TLS with them, plain TCP without.
  std::optional<base::gang_credentials> credentials = {};

  // Rank 0's exit ends the command with its code, any other loss ends it with 4; no restarts.
  bool one_shot = false;
  restart_bound restarts = {};
  // From the first SIGTERM, SIGINT or SIGHUP to the end of rank 0; the others then have
  // `leave_patience`. Under Kubernetes below terminationGracePeriodSeconds.
  std::chrono::milliseconds drain_patience{100'000};
  std::chrono::milliseconds leave_patience{2'000};

  // <state_dir>/run/<name>.socket answers `troupe health`. Empty state_dir: no such socket.
  std::string state_dir = {};
  std::string name = {};  // empty: the process id
  int out = 1;            // announcements, one JSON object a line
  // Default: transport's shared segment.
  segment_maker make_segment = {};
};

struct ended {
  int exit_code = 0;  // CONTRACT: 0 fine, 1 failed, 2 usage, 3 refused input, 4 lost its gang
  std::string cause;  // one line; empty when exit_code is 0
};

// Runs the gang's ranks of this node until the end. A state_dir that cannot be written is a warning
// in the log. Errors: what else cannot be set up (options, descriptors, credentials); nothing was
// started then.
[[nodiscard]] base::result<ended> run(options chosen, const base::logger& log);

}  // namespace troupe::supervisor
