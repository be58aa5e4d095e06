// What the commands with an HTTP port share: where it opens, for whom, and how many may come.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "serving/api_keys.hpp"

namespace troupe::cli {

struct http_listener {
  base::fd socket;
  std::string url;
};

// Errors: those of base::listen_on; invalid_argument where other machines reach the address and
// there are no keys, unless TROUPE_ALLOW_NO_API_KEY=1.
[[nodiscard]] base::result<http_listener> listen_http(const std::string& host, std::uint16_t port,
                                                      bool has_keys);

// No file: no keys. Errors: not_found, invalid_argument (which line).
[[nodiscard]] base::result<serving::api_keys> read_api_keys(const std::string& file);

// Each connection is a descriptor: as many as there may be after the limit is raised, at most
// `wanted`.
[[nodiscard]] std::size_t connections_within_limits(std::size_t wanted, const base::logger& log);

// The wall clock. Units: seconds since 1970.
[[nodiscard]] std::chrono::seconds unix_time();

}  // namespace troupe::cli
