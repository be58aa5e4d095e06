// What a command says on stdout while it runs: one JSON object a line.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>

namespace troupe::cli {

inline void print_event(const nlohmann::ordered_json& event) {
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  std::printf("%s\n", event.dump(-1, ' ', false, replace).c_str());
  std::fflush(stdout);
}

}  // namespace troupe::cli
