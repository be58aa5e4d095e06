// troupe health: asks this node's supervisor whether its ranks are joined; an exec probe.
#include <cstdio>
#include <memory>

#include "cli/commands.hpp"
#include "cli/gang_flags.hpp"
#include "cli/yaml_config.hpp"
#include "supervisor/health.hpp"

namespace troupe::cli {
namespace {

struct health_flags {
  gang_flags gang;  // state_dir alone
  std::string name;
  bool alive = false;
};

exit_code run_health(const health_flags& flags) {
  const auto status =
      supervisor::ask_health({.state_dir = resolve_state_dir(flags.gang), .name = flags.name});
  if (!status) return report(status.error(), exit_code::failed);
  if (flags.alive) return exit_code::fine;
  for (const supervisor::rank_status& rank : status->ranks) {
    std::printf("rank %d: %s%s%s\n", rank.rank.value,
                rank.running ? supervisor::to_string(rank.phase) : "not running",
                rank.detail.empty() ? "" : ": ", rank.detail.c_str());
  }
  if (status->joined) {
    std::printf("joined in epoch %llu\n", static_cast<unsigned long long>(status->epoch.number));
    return exit_code::fine;
  }
  std::printf("not joined: %s\n", status->why.c_str());
  return exit_code::failed;
}

}  // namespace

command add_health(CLI::App& program) {
  auto flags = std::make_shared<health_flags>();
  CLI::App* parser =
      program.add_subcommand("health", "Ask this machine's supervisor: exit 0 when joined");
  parser->add_option("--state-dir", flags->gang.state_dir, "as given to troupe serve");
  parser->add_option("--name", flags->name, "process id of one of several supervisors");
  parser->add_flag("--alive", flags->alive,
                   "exit 0 when the supervisor answers, joined or not: a liveness probe");
  add_sources(*parser);
  return {parser, [flags] { return run_health(*flags); }};
}

}  // namespace troupe::cli
