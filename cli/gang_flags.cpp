#include "cli/gang_flags.hpp"

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <utility>

#include "cli/build_id.hpp"
#include "cli/own_address.hpp"

namespace troupe::cli {
namespace {

constexpr const char* default_tls_folder = "/etc/troupe/gang";

tl::unexpected<base::error> refuse(const std::string& what) {
  return base::fail(base::error_code::invalid_argument, "cli", what);
}

base::result<port_range> parse_ports(const std::string& text) {
  port_range range;
  const char* const end = text.data() + text.size();
  const auto [dash, first_problem] = std::from_chars(text.data(), end, range.first);
  bool good = first_problem == std::errc() && range.first > 0;
  range.last = range.first;
  if (good && dash != end) {
    good = *dash == '-';
    const auto [stop, problem] = std::from_chars(dash + 1, end, range.last);
    good = good && problem == std::errc() && stop == end && range.last >= range.first;
  }
  if (good) return range;
  return refuse("--data-plane-ports is \"" + text + "\", wanted: a range like 8473-8488");
}

base::result<void> check_nodes(const gang_flags& flags, int world_size) {
  if (flags.node_rank >= flags.nnodes) {
    return refuse("--node-rank is " + std::to_string(flags.node_rank) + ", --nnodes is " +
                  std::to_string(flags.nnodes) + ": ranks count from 0");
  }
  if (world_size % flags.nnodes != 0) {
    return refuse("--nnodes " + std::to_string(flags.nnodes) + " does not divide the " +
                  std::to_string(world_size) +
                  " ranks of --tensor-parallel-size x --pipeline-parallel-size");
  }
  if (flags.leader.empty()) return refuse("--nnodes above 1 needs --leader HOST");
  if (flags.data_plane == "shared_memory") {
    return refuse("--data-plane shared_memory is for one host; between hosts: tls or ucx");
  }
  return {};
}

}  // namespace

void add_gang_flags(CLI::App& parser, gang_flags& flags) {
  parser.add_option("--nnodes", flags.nnodes, "machines of the gang [LWS_GROUP_SIZE, or 1]")
      ->check(CLI::Range(1, 64));
  parser.add_option("--node-rank", flags.node_rank, "of this machine [LWS_WORKER_INDEX, or 0]")
      ->check(CLI::Range(0, 63));
  parser.add_option("--leader", flags.leader, "name or address of machine 0 [LWS_LEADER_ADDRESS]");
  parser.add_option("--gang-host", flags.gang_host,
                    "this machine's address on the gang's network [the one that reaches --leader]");
  parser.add_option("--gang-tls", flags.gang_tls,
                    "folder of tls.crt, tls.key and ca.crt [etc/troupe/gang at the root if there]");
  parser
      .add_option("--data-plane", flags.data_plane,
                  "auto: shared memory on one host, tls between hosts; ucx trusts its network")
      ->check(CLI::IsMember({"auto", "shared_memory", "tls", "ucx"}))
      ->capture_default_str();
  parser.add_option("--data-plane-ports", flags.data_plane_ports, "range, between hosts")
      ->capture_default_str();
  parser.add_option("--control-plane-port", flags.control_port, "of machine 0, between hosts")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  parser.add_option("--state-dir", flags.state_dir,
                    "what outlives restarts [troupe under XDG_STATE_HOME]");
  parser.add_option("--revision", flags.revision,
                    "of the deployment: members of another are refused, as of another build");
  parser.add_option("--gang-timeout", flags.gang_timeout_s, "s until a gang that cannot form ends")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  parser.add_option("--max-restarts", flags.max_restarts, "of a rank within --restart-window")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  parser.add_option("--restart-window", flags.restart_window_min, "minutes")
      ->check(CLI::Range(1, 1440))
      ->capture_default_str();
}

base::result<gang_topology> resolve_topology(const gang_flags& flags, const model_flags& model) {
  gang_topology topology;
  topology.world_size = world_size(model);
  topology.nnodes = flags.nnodes;
  topology.node_rank = flags.node_rank;
  TROUPE_TRY(ports, parse_ports(flags.data_plane_ports));
  topology.ports = ports;
  topology.data_plane = flags.data_plane;
  if (flags.data_plane == "auto") topology.data_plane = flags.nnodes > 1 ? "tls" : "shared_memory";
  if (flags.nnodes == 1) {
    topology.local_ranks = topology.world_size;
    topology.gang_host = flags.gang_host.empty() ? "127.0.0.1" : flags.gang_host;
    return topology;
  }
  TROUPE_TRY_VOID(check_nodes(flags, topology.world_size));
  topology.local_ranks = topology.world_size / flags.nnodes;
  topology.first_rank = flags.node_rank * topology.local_ranks;
  topology.leader_host = flags.leader;
  topology.gang_host = flags.gang_host;
  if (topology.gang_host.empty()) {
    TROUPE_TRY(own, own_address_towards(flags.leader, std::chrono::seconds(flags.gang_timeout_s)));
    topology.gang_host = std::move(own);
  }
  return topology;
}

base::result<base::gang_credentials> resolve_credentials(const gang_flags& flags) {
  if (!flags.gang_tls.empty()) return base::read_gang_credentials(flags.gang_tls);
  if (flags.nnodes == 1) return base::make_gang_credentials();
  if (std::filesystem::exists(default_tls_folder)) {
    return base::read_gang_credentials(default_tls_folder);
  }
  const char* const insecure = std::getenv("TROUPE_INSECURE_GANG");
  if (insecure != nullptr && std::string_view(insecure) == "1") {
    std::fprintf(stderr,
                 "troupe: warning: TROUPE_INSECURE_GANG=1: every machine that reaches the "
                 "gang's ports can join it\n");
    return base::make_insecure_gang_credentials();
  }
  return base::fail(base::error_code::failed_precondition, "cli",
                    "a gang over several machines needs certificates: give --gang-tls DIR with "
                    "tls.crt, tls.key and ca.crt (troupe certificates DIR makes them), "
                    "or set TROUPE_INSECURE_GANG=1 on a network that nobody else reaches");
}

std::string member_build(const gang_flags& flags) {
  constexpr std::size_t shown = 64;
  if (flags.revision.empty()) return build_id();
  return build_id() + " of revision " + flags.revision.substr(0, shown);
}

std::string resolve_state_dir(const gang_flags& flags) {
  if (!flags.state_dir.empty()) return flags.state_dir;
  const char* const state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::string(state) + "/troupe";
  const char* const home = std::getenv("HOME");
  return std::string(home != nullptr && *home == '/' ? home : "/tmp") + "/.local/state/troupe";
}

}  // namespace troupe::cli
