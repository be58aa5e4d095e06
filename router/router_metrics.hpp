// /metrics of a router, in Prometheus' text format: all names begin with troupe_router_.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "net/http_server.hpp"
#include "router/gang_table.hpp"
#include "router/proxied_request.hpp"

namespace troupe::router {

struct metrics_parts {
  const std::vector<std::shared_ptr<gang>>& gangs;
  const router_counters& counters;
  std::size_t waiting = 0;
  std::size_t open = 0;
  net::http_server_counters http = {};
  std::string version;
};

[[nodiscard]] std::string metrics_page(const metrics_parts& parts);

}  // namespace troupe::router
