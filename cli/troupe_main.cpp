// The program: parse, run one command, return its code. Everything is built here and handed down.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <vector>

#include "cli/commands.hpp"
#include "cli/usage.hpp"
#include "cli/yaml_config.hpp"

namespace {

using troupe::cli::command;
using troupe::cli::exit_code;
using troupe::cli::invocation;

exit_code run(const invocation& called) {
  CLI::App program("Serves one very large language model across many machines.", "troupe");
  program.require_subcommand(1);
  program.set_version_flag("--version", std::string("troupe ") + TROUPE_VERSION);
  program.failure_message(CLI::FailureMessage::simple);
  const std::vector<command> commands = {
      troupe::cli::add_serve(program, called), troupe::cli::add_generate(program, called),
      troupe::cli::add_bench(program, called), troupe::cli::add_inspect(program),
      troupe::cli::add_health(program),        troupe::cli::add_certificates(program),
      troupe::cli::add_router(program),        troupe::cli::add_lws_manifest(program),
      troupe::cli::add_run(program),           troupe::cli::add_container(program)};
  std::vector<const char*> words = {"troupe"};
  for (const std::string& word : called.words) words.push_back(word.c_str());
  const int argc = static_cast<int>(words.size());
  const char* const* const argv = words.data();
  try {
    program.parse(argc, argv);
    for (const command& candidate : commands) {
      if (candidate.parser->parsed()) troupe::cli::apply_config(*candidate.parser);
    }
  } catch (const CLI::Success& asked) {  // --help, --version
    program.exit(asked);
    return exit_code::fine;
  } catch (const CLI::ParseError& error) {
    return troupe::cli::report_usage(troupe::cli::usage_line(
        error, troupe::cli::chosen_command(program, argc, argv), argc, argv));
  }
  for (const command& candidate : commands) {
    if (candidate.parser->parsed()) return candidate.run();
  }
  return exit_code::usage;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto called = troupe::cli::parse_invocation(argc, argv);
    if (!called) {
      return static_cast<int>(troupe::cli::report(called.error(), exit_code::usage));
    }
    return static_cast<int>(run(*called));
  } catch (const std::exception& error) {  // start-up only; nothing else throws this far
    std::fprintf(stderr, "troupe: %s [internal]\n", error.what());
    return static_cast<int>(exit_code::failed);
  }
}
