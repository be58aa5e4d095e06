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

exit_code run(int argc, char** argv) {
  CLI::App program("Serves one very large language model across many machines.", "troupe");
  program.require_subcommand(1);
  program.set_version_flag("--version", std::string("troupe ") + TROUPE_VERSION);
  program.failure_message(CLI::FailureMessage::simple);
  const std::vector<command> commands = {troupe::cli::add_generate(program),
                                         troupe::cli::add_inspect(program),
                                         troupe::cli::add_bench(program)};
  const auto chosen = [&]() -> const CLI::App& {
    for (const command& candidate : commands) {
      if (candidate.parser->parsed()) return *candidate.parser;
    }
    // A parse that failed early has marked nothing: go by the word.
    for (const command& candidate : commands) {
      if (argc > 1 && candidate.parser->check_name(argv[1])) return *candidate.parser;
    }
    return program;
  };
  try {
    program.parse(argc, argv);
    for (const command& candidate : commands) {
      if (candidate.parser->parsed()) troupe::cli::apply_config(*candidate.parser);
    }
  } catch (const CLI::Success& asked) {  // --help, --version
    program.exit(asked);
    return exit_code::fine;
  } catch (const CLI::ParseError& error) {
    return troupe::cli::report_usage(troupe::cli::usage_line(error, chosen(), argc, argv));
  }
  for (const command& candidate : commands) {
    if (candidate.parser->parsed()) return candidate.run();
  }
  return exit_code::usage;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return static_cast<int>(run(argc, argv));
  } catch (const std::exception& error) {  // start-up only; nothing else throws this far
    std::fprintf(stderr, "troupe: %s [internal]\n", error.what());
    return static_cast<int>(exit_code::failed);
  }
}
