// `--config FILE`: YAML with the flags' own names, between environment and defaults in precedence.
#pragma once

#include <CLI/CLI.hpp>

namespace troupe::cli {

struct config_limits {
  static constexpr std::size_t file_bytes_max = 1U << 20;
};

// The name of a flag's environment variable: "max-model-len" -> "TROUPE_MAX_MODEL_LEN".
[[nodiscard]] std::string environment_name(const std::string& flag);

// Gives every flag of `parser` its environment variable and makes --config read YAML.
void add_sources(CLI::App& parser);

}  // namespace troupe::cli
