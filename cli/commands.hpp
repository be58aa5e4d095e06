// The commands, one source file each. A command adds its flags to the program's parser; the
// function it returns runs after a successful parse.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "cli/exit_code.hpp"
#include "cli/invocation.hpp"

namespace troupe::cli {

using command_body = std::function<exit_code()>;

struct command {
  CLI::App* parser = nullptr;  // owned by the program's parser
  command_body run;
};

// `called` outlives the command.
[[nodiscard]] command add_serve(CLI::App& program, const invocation& called);
[[nodiscard]] command add_generate(CLI::App& program, const invocation& called);
[[nodiscard]] command add_bench(CLI::App& program, const invocation& called);
[[nodiscard]] command add_inspect(CLI::App& program);
[[nodiscard]] command add_health(CLI::App& program);
[[nodiscard]] command add_certificates(CLI::App& program);
[[nodiscard]] command add_router(CLI::App& program);
[[nodiscard]] command add_run(CLI::App& program);
[[nodiscard]] command add_container(CLI::App& program);
[[nodiscard]] command add_lws_manifest(CLI::App& program);

}  // namespace troupe::cli
