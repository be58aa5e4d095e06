#include "cli/gang_launch.hpp"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/log.hpp"
#include "base/socket.hpp"
#include "supervisor/supervisor.hpp"

namespace troupe::cli {
namespace {

// The supervisors' own connection is on the last port of the data plane's range, so that the ports
// a NetworkPolicy opens for the gang suffice.
base::result<supervisor::node_link_options> node_link(const gang_topology& topology,
                                                      std::string build) {
  supervisor::node_link_options link{.node_rank = topology.node_rank,
                                     .nnodes = topology.nnodes,
                                     .listening = {},
                                     .leader_host = topology.leader_host,
                                     .leader_port = topology.ports.last,
                                     .build_id = std::move(build)};
  if (topology.node_rank == 0) {
    TROUPE_TRY(socket, base::listen_on({.host = topology.gang_host,
                                        .port_first = topology.ports.last,
                                        .port_last = topology.ports.last}));
    link.listening = std::move(socket.descriptor);
  }
  return link;
}

base::result<supervisor::options> make_options(gang_launch& launch) {
  TROUPE_TRY(credentials, resolve_credentials(launch.gang));  // before anything is waited for
  TROUPE_TRY(topology, resolve_topology(launch.gang, launch.model));
  rank_seat seat = launch.seat;
  seat.parent = static_cast<std::int32_t>(::getpid());
  seat.gang_host = topology.gang_host;
  supervisor::options options;
  options.command_of = [seat, words = launch.called.words](base::rank_id rank) mutable {
    seat.rank = rank.value;
    return supervisor::rank_command{.arguments = rank_arguments(seat, words), .environment = {}};
  };
  options.world_size = topology.world_size;
  if (topology.nnodes > 1) {
    TROUPE_TRY(link, node_link(topology, member_build(launch.gang)));
    options.link = std::move(link);
  }
  if (launch.open_http) {
    TROUPE_TRY(door, launch.open_http(topology));
    options.http = std::move(door.socket);
    options.url = std::move(door.url);
  }
  options.credentials = std::move(credentials);
  options.one_shot = launch.one_shot;
  options.restarts = {.restarts = launch.gang.max_restarts,
                      .window = std::chrono::minutes(launch.gang.restart_window_min)};
  options.drain_patience = launch.drain_patience;
  if (!launch.one_shot) options.state_dir = resolve_state_dir(launch.gang);
  return options;
}

}  // namespace

exit_code supervise(gang_launch launch) {
  // A one-shot command's supervisor speaks only when something is wrong.
  const auto level = base::parse_log_level(launch.model.log_level);
  const bool quiet = launch.one_shot && level && *level == base::log_level::info;
  auto log = base::logger::make(
      {.role = "supervisor",
       .level = quiet ? base::log_level::warning : level.value_or(base::log_level::info)});
  if (!log) return report(log.error());
  auto options = make_options(launch);
  if (!options) {
    const base::error_code code = options.error().code;
    if (code == base::error_code::cancelled) return report(options.error(), exit_code::fine);
    const bool usage = code == base::error_code::invalid_argument;
    return report(options.error(), usage ? exit_code::usage : exit_code::failed);
  }
  auto ended = supervisor::run(*std::move(options), *log);
  if (!ended) return report(ended.error());
  if (ended->exit_code == 0) return exit_code::fine;
  // A rank that failed has said why itself; the gang's own end is said here.
  if (!ended->cause.empty()) std::fprintf(stderr, "troupe: %s\n", ended->cause.c_str());
  return static_cast<exit_code>(ended->exit_code);
}

}  // namespace troupe::cli
