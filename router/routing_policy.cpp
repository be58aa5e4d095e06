#include "router/routing_policy.hpp"

#include <optional>
#include <string>

namespace troupe::router {
namespace {

// The gang's place in the order of this affinity: the highest comes first.
std::uint64_t rank_of(std::uint64_t affinity, std::uint64_t name_hash) {
  std::uint64_t mixed = affinity ^ (name_hash * 0x9e3779b97f4a7c15U);
  mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31U);
}

std::size_t least_loaded(std::span<const gang_load> gangs, std::size_t first) {
  std::size_t best = first % gangs.size();
  for (std::size_t i = 1; i < gangs.size(); ++i) {
    const std::size_t at = (first + i) % gangs.size();
    if (gangs[at].outstanding_tokens < gangs[best].outstanding_tokens) best = at;
  }
  return best;
}

}  // namespace

std::size_t affinity_policy::choose(std::span<const gang_load> gangs,
                                    const request_traits& request) {
  const auto place = [&](std::size_t at) {
    return rank_of(request.affinity.value_or(0), gangs[at].name_hash);
  };
  if (!request.affinity) return least_loaded(gangs, turn_++);
  std::int64_t all = request.tokens();
  for (const gang_load& gang : gangs) all += gang.outstanding_tokens;
  const double mean = static_cast<double>(all) / static_cast<double>(gangs.size());
  const auto bound = static_cast<std::int64_t>(bounds_.load_factor * mean) + bounds_.slack_tokens;
  std::optional<std::size_t> chosen;
  for (std::size_t at = 0; at < gangs.size(); ++at) {
    if (gangs[at].outstanding_tokens + request.tokens() > bound) continue;
    if (!chosen || place(at) > place(*chosen)) chosen = at;
  }
  return chosen ? *chosen : least_loaded(gangs, turn_++);
}

std::size_t least_tokens_policy::choose(std::span<const gang_load> gangs,
                                        const request_traits& /*request*/) {
  return least_loaded(gangs, turn_++);
}

base::result<std::unique_ptr<routing_policy>> make_policy(std::string_view name,
                                                          affinity_bounds bounds) {
  if (name == "affinity") return std::make_unique<affinity_policy>(bounds);
  if (name == "least-tokens") return std::make_unique<least_tokens_policy>();
  return base::fail(base::error_code::invalid_argument, "router",
                    "no policy '" + std::string(name) + "': give affinity or least-tokens");
}

}  // namespace troupe::router
