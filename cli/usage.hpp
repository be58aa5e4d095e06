// Wrong usage as one line: what, where, and the nearest right name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace troupe::cli {

// The line for an error of the parser. `chosen` is the command in use, or the program's parser.
[[nodiscard]] std::string usage_line(const CLI::ParseError& error, const CLI::App& chosen, int argc,
                                     const char* const* argv);

}  // namespace troupe::cli
