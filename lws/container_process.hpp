// Turns this process into a container of `troupe run`: this machine's files with a few others in
// their places, in a mount namespace of its own, as root or, without that, in a user namespace.
//
//   TROUPE_TRY(start, lws::parse_container(text));       // what the parent wrote
//   const base::error why = lws::become_container(start);  // returns only when it cannot
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/error.hpp"

namespace troupe::lws {

struct bound_file {
  std::string from;  // of this machine: a file or a folder
  std::string to;    // where the container sees it; comes into being where there is nothing
  bool read_only = false;
};

struct container_start {
  std::string root;  // an empty folder; what is mounted there is this process's alone
  std::vector<bound_file> files;
  std::string folder = "/";  // working directory
  std::vector<std::string> words;
  std::vector<std::string> environment;  // NAME=value; nothing else
  pid_t parent = 0;                      // its end is this process's
};

// JSON and back.
[[nodiscard]] std::string format_container(const container_start& start);
[[nodiscard]] base::result<container_start> parse_container(const std::string& text);

// Errors: permission_denied (this machine allows no namespaces; how to allow them), not_found (the
// program, or a file to bind), unavailable (the parent is gone; what else a system call says).
[[nodiscard]] base::error become_container(const container_start& start);

}  // namespace troupe::lws
