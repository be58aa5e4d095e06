// Which gang a request goes to: a pure choice among those that can take it. This is the place to
// try another rule; `troupe router --policy` names them.
//
//   struct to_the_first final : routing_policy {
//     std::size_t choose(std::span<const gang_load>, const request_traits&) override { return 0; }
//   };
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/error.hpp"
#include "router/request_traits.hpp"

namespace troupe::router {

struct gang_load {
  std::uint64_t name_hash = 0;  // hash_of() its name
  // Of its open requests: prompts that are not computed and tokens that have not come.
  std::int64_t outstanding_tokens = 0;
};

class routing_policy {
 public:
  routing_policy() = default;
  routing_policy(const routing_policy&) = delete;
  routing_policy& operator=(const routing_policy&) = delete;
  virtual ~routing_policy() = default;

  // Range: an index of `gangs`, which are never empty. Called for every attempt of a request, on
  // one thread.
  [[nodiscard]] virtual std::size_t choose(std::span<const gang_load> gangs,
                                           const request_traits& request) = 0;
};

struct affinity_bounds {
  // A gang takes what has an affinity to it while it has at most this many times the mean of the
  // outstanding tokens and ...
  double load_factor = 1.25;
  // ... beside that, this many more: in an idle pool every load is far from the mean.
  std::int64_t slack_tokens = 8192;
};

// Consistent hashing with bounded loads: each affinity has an order of its own over all gangs
// (rendezvous hashing), and goes to the first of them whose load is within the bounds; a gang more
// or less moves only what goes to it. Without an affinity, or when none is within: the least load.
// Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018);
// Thaler, Ravishankar, "Using name-based mappings to increase hit rates" (1998).
class affinity_policy final : public routing_policy {
 public:
  explicit affinity_policy(affinity_bounds bounds = {}) : bounds_(bounds) {}
  [[nodiscard]] std::size_t choose(std::span<const gang_load> gangs,
                                   const request_traits& request) override;

 private:
  const affinity_bounds bounds_;
  std::size_t turn_ = 0;
};

// The fewest outstanding tokens; equals take turns.
class least_tokens_policy final : public routing_policy {
 public:
  [[nodiscard]] std::size_t choose(std::span<const gang_load> gangs,
                                   const request_traits& request) override;

 private:
  std::size_t turn_ = 0;
};

// "affinity" or "least-tokens". Errors: invalid_argument.
[[nodiscard]] base::result<std::unique_ptr<routing_policy>> make_policy(std::string_view name,
                                                                        affinity_bounds bounds);

}  // namespace troupe::router
