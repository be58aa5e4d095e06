// `troupe router` before the gangs of a LeaderWorkerSet: pods that watch the leaders' pods, what
// they may read, and the address that clients use.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "lws/manifest.hpp"

namespace troupe::lws {

// ServiceAccount, Role, RoleBinding, Service, Deployment, and unless core_only a NetworkPolicy.
// Range: options.routers at least 1.
[[nodiscard]] std::vector<nlohmann::ordered_json> router_objects(const manifest_options& options);

}  // namespace troupe::lws
