// The flags of a gang of processes: where its members are, how they find and trust each other.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/tls.hpp"
#include "cli/model_flags.hpp"

namespace troupe::cli {

struct gang_flags {
  int nnodes = 1;
  int node_rank = 0;
  std::string leader;               // name or address of node 0's machine
  std::string gang_host;            // numeric; empty: the address from which the leader is reached
  std::string gang_tls;             // folder of tls.crt, tls.key, ca.crt
  std::string data_plane = "auto";  // shared memory on one host, tls between hosts
  std::string data_plane_ports = "8473-8488";
  std::uint16_t control_port = 8472;
  std::string state_dir;
  std::string revision;  // of what deploys the gang; empty: none is compared
  int gang_timeout_s = 600;
  int max_restarts = 8;
  int restart_window_min = 10;
};

// For commands that run on this machine only (generate, bench): state and restarts stay default.
void add_gang_flags(CLI::App& parser, gang_flags& flags);

struct port_range {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};

// What the flags come to on this node.
struct gang_topology {
  int world_size = 1;
  int nnodes = 1;
  int node_rank = 0;
  int first_rank = 0;  // of this node
  int local_ranks = 1;
  std::string data_plane;  // "shared_memory", "tls" or "ucx"
  port_range ports;
  // Several nodes only. Looked up at every dial: a leader that comes back may have moved.
  std::string leader_host;
  std::string gang_host;  // this node's address on the gang's network; loopback on one host
};

// Where --gang-host is not given, own_address_towards() finds it, up to --gang-timeout.
// Errors: invalid_argument (flags that cannot be together), those of own_address_towards.
[[nodiscard]] base::result<gang_topology> resolve_topology(const gang_flags& flags,
                                                           const model_flags& model);

// The gang's own certificates: from --gang-tls, from the default folder, or made now on one host.
// Errors: failed_precondition (several nodes and none), those of read_gang_credentials.
[[nodiscard]] base::result<base::gang_credentials> resolve_credentials(const gang_flags& flags);

// What tells this member's program from another's at the join: the build, and --revision.
[[nodiscard]] std::string member_build(const gang_flags& flags);

// --state-dir, or troupe under XDG_STATE_HOME, or under ~/.local/state.
[[nodiscard]] std::string resolve_state_dir(const gang_flags& flags);

}  // namespace troupe::cli
