// Where a router learns of its gangs: addresses that were given, a name with an address for each
// gang, the pods of a label selector. All of them together, each on a thread of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "lws/kubernetes_api.hpp"
#include "router/gang_table.hpp"

namespace troupe::cli {

struct discovery_options {
  std::vector<std::string> urls;   // http://host:port, a gang each
  std::vector<std::string> names;  // host:port, a gang behind each address of the name
  std::string selector;            // of pods; empty: none
  std::optional<lws::kubernetes_access> kubernetes;  // where there is a selector
  std::uint16_t pod_port = 8000;
  std::chrono::milliseconds interval{1'000};  // between two lookups
};

class gang_discovery {
 public:
  using listener = std::function<void(std::vector<router::gang_place>)>;

  // `on_found` is called on threads of this, with all that there are, at each change.
  gang_discovery(discovery_options options, const base::logger& log, listener on_found);
  gang_discovery(const gang_discovery&) = delete;
  gang_discovery& operator=(const gang_discovery&) = delete;
  ~gang_discovery() = default;  // waits for a lookup that is under way

  // Errors: invalid_argument (an address or a name that is none).
  [[nodiscard]] static base::result<void> check(const discovery_options& options);

 private:
  void look_up_all(const std::stop_token& stop);
  void publish(int source, std::vector<router::gang_place> places);

  const discovery_options options_;
  const base::logger& log_;
  const listener on_found_;
  std::mutex mutex_;
  std::map<int, std::vector<router::gang_place>> by_source_;
  std::vector<std::jthread> threads_;  // last: they use all of the above
};

}  // namespace troupe::cli
