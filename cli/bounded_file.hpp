// A file that a flag names, read whole up to a bound.
#pragma once

#include <cstddef>
#include <fstream>
#include <string>

#include "base/error.hpp"

namespace troupe::cli {

// Errors: invalid_argument, naming the flag, the file and the bound. Units: bytes; whole MiB.
[[nodiscard]] inline base::result<std::string> read_bounded_file(const std::string& flag,
                                                                 const std::string& path,
                                                                 std::size_t bytes_max) {
  const auto refuse = [&](const std::string& what) {
    return base::fail(base::error_code::invalid_argument, "cli", flag + ": " + what);
  };
  std::ifstream file(path, std::ios::binary);
  if (!file) return refuse("cannot open " + path);
  std::string text(bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > bytes_max) {
    return refuse(path + " is larger than " + std::to_string(bytes_max >> 20U) + " MiB");
  }
  return text;
}

}  // namespace troupe::cli
