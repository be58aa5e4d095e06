// What the process returns, and the one line it prints before.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "actors/machine.hpp"
#include "base/error.hpp"

namespace troupe::cli {

enum class exit_code : int { fine = 0, failed = 1, usage = 2, refused_input = 3, lost_gang = 4 };

[[nodiscard]] constexpr exit_code exit_code_of(base::error_code code) noexcept {
  return static_cast<exit_code>(actors::exit_code_of(code));
}

// Prints "troupe: <message> [<code>]" on stderr and gives the exit code.
inline exit_code report(const base::error& error, exit_code code) {
  const std::string name(base::to_string(error.code));
  std::fprintf(stderr, "troupe: %s [%s]\n", error.message.c_str(), name.c_str());
  return code;
}
inline exit_code report(const base::error& error) {
  return report(error, exit_code_of(error.code));
}
// A flag or key that cannot be: always exit code 2. The message begins with the command.
inline exit_code report_usage(const std::string& message) {
  std::fprintf(stderr, "%s [invalid_argument]\n", message.c_str());
  return exit_code::usage;
}

}  // namespace troupe::cli
