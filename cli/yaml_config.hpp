// Where a flag's value comes from when the command line has none: its environment variable, then
// `--config FILE`, YAML with the flags' own names, then the default.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace troupe::cli {

struct config_limits {
  static constexpr std::size_t file_bytes_max = 1U << 20;
};

// The name of a flag's environment variable: "max-model-len" -> "TROUPE_MAX_MODEL_LEN".
[[nodiscard]] std::string environment_name(const std::string& flag);

// Gives every flag of `parser` its environment variable, and adds --config. Call after all flags.
void add_sources(CLI::App& parser);

// Reads the --config file of a parsed command into flags that nothing else has set.
// Throws CLI::ConfigError (unknown key), CLI::FileError (unreadable, not YAML), CLI::ParseError
// (impossible value): start-up only.
void apply_config(CLI::App& parser);

}  // namespace troupe::cli
