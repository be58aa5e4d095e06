// Follows the pods of a label selector for as long as it may: a list, then a watch, and both again
// when the API server ends them or is away. What was known last stays known meanwhile.
//
//   lws::watch_pods(api, "app=x", [&](auto pods) { router.set_gangs(places_of(pods)); },
//                   [&](auto& error) { log.warning(error.message); }, stop);
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "lws/kubernetes_api.hpp"
#include "lws/pod_set.hpp"

namespace troupe::lws {

// Blocks until `stop`. Both functions are called on this thread: `changed` after each list and each
// event that matters, `failed` once for each attempt that failed.
void watch_pods(const kubernetes_api& api, const std::string& label_selector,
                const std::function<void(std::vector<found_pod> pods)>& changed,
                const std::function<void(const base::error& why)>& failed,
                const std::stop_token& stop);

}  // namespace troupe::lws
