// The gangs that a router knows: where they are, how they are, what they have to do. Pure state: no
// clock, no I/O. A gang that discovery no longer names stays until its last request has ended.
//
//   found (discovery) -> unknown -- /ready 200 --> ready -- 503, refused, silent --> not ready
//   terminating or gone: takes nothing new; what is open there goes on
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/http_pool.hpp"
#include "router/routing_policy.hpp"

namespace troupe::router {

// What discovery says of a gang.
struct gang_place {
  std::string name;  // of its pod, or host:port: what metrics and logs call it
  net::http_peer peer;
  bool terminating = false;
};

struct gang_counters {
  std::uint64_t requests = 0;  // sent to it
  std::uint64_t completed = 0;
  std::uint64_t refused = 0;  // 429 and 503
  std::uint64_t lost = 0;     // it went while it had them
};

struct gang {
  using time_point = std::chrono::steady_clock::time_point;

  gang_place place;
  std::uint64_t name_hash = hash_of(place.name);
  bool found = true;  // by the last discovery
  bool ready = false;
  std::string why_not = "not asked yet";
  std::optional<time_point> silent_since = {};  // no answer to any probe since
  // Objects of /v1/models; empty where it does not tell: it is asked for any model then.
  std::vector<std::pair<std::string, std::string>> models = {};  // id, JSON
  std::int64_t outstanding_tokens = 0;
  std::int64_t open_requests = 0;
  gang_counters counted = {};
  bool asked = false;      // a probe is on its way
  time_point ask_at = {};  // when the next one is due

  [[nodiscard]] bool takes() const noexcept { return ready && found && !place.terminating; }
  [[nodiscard]] bool serves(const std::string& model) const noexcept;
};

class gang_table {
 public:
  // All that there are now. Gives back those that are gone for good.
  std::vector<std::shared_ptr<gang>> update(std::vector<gang_place> places);
  // Removes what is gone and has nothing open. Gives it back.
  std::vector<std::shared_ptr<gang>> sweep();

  // The gang for a request, none of `tried`; nullptr where none takes it.
  [[nodiscard]] std::shared_ptr<gang> choose(routing_policy& policy, const request_traits& request,
                                             std::span<const std::shared_ptr<gang>> tried) const;
  // Whether every ready gang tells its models and none has this one.
  [[nodiscard]] bool unknown_model(const std::string& model) const noexcept;
  [[nodiscard]] bool any_takes() const noexcept;
  [[nodiscard]] const std::vector<std::shared_ptr<gang>>& all() const noexcept { return gangs_; }

 private:
  std::vector<std::shared_ptr<gang>> gangs_;  // by name
};

}  // namespace troupe::router
