// A measurement on stdout: one JSON object, or a line a figure.
#pragma once

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/exit_code.hpp"

namespace troupe::cli {

// `output`: text or json, as --output has it. Returns failed where stdout takes no more.
[[nodiscard]] inline exit_code print_report(const nlohmann::ordered_json& report,
                                            const std::string& output) {
  if (output == "json") {
    std::cout << report.dump() << '\n';
  } else {
    for (const auto& [name, value] : report.items()) {
      std::cout << name << ": " << value.dump() << '\n';
    }
  }
  return std::cout.flush() ? exit_code::fine : exit_code::failed;
}

}  // namespace troupe::cli
