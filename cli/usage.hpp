// Wrong usage as one line: what, where, and the nearest right name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace troupe::cli {

// The command that the words begin with, or the program's parser.
[[nodiscard]] const CLI::App& chosen_command(const CLI::App& program, int argc,
                                             const char* const* argv);

// The line for an error of the parser. `chosen` is that of chosen_command().
[[nodiscard]] std::string usage_line(const CLI::ParseError& error, const CLI::App& chosen, int argc,
                                     const char* const* argv);

}  // namespace troupe::cli
