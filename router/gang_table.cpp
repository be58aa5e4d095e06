#include "router/gang_table.hpp"

#include <algorithm>
#include <utility>

namespace troupe::router {

bool gang::serves(const std::string& model) const noexcept {
  if (model.empty() || models.empty()) return true;
  return std::ranges::any_of(models, [&](const auto& one) { return one.first == model; });
}

std::vector<std::shared_ptr<gang>> gang_table::update(std::vector<gang_place> places) {
  for (const auto& known : gangs_) known->found = false;
  for (gang_place& place : places) {
    const auto same = std::ranges::find_if(gangs_, [&](const auto& known) {
      return known->place.name == place.name &&
             known->place.peer.addresses == place.peer.addresses &&
             known->place.peer.port == place.peer.port;
    });
    if (same != gangs_.end()) {
      (*same)->found = true;
      (*same)->place.terminating = place.terminating;
      continue;
    }
    // A pod under its old name at a new address is another gang: what was open ended with the old.
    gangs_.push_back(std::make_shared<gang>(gang{.place = std::move(place)}));
  }
  std::ranges::stable_sort(gangs_, {}, [](const auto& one) { return one->place.name; });
  return sweep();
}

std::vector<std::shared_ptr<gang>> gang_table::sweep() {
  std::vector<std::shared_ptr<gang>> gone;
  std::erase_if(gangs_, [&](const std::shared_ptr<gang>& one) {
    if (one->found || one->open_requests > 0) return false;
    gone.push_back(one);
    return true;
  });
  return gone;
}

std::shared_ptr<gang> gang_table::choose(routing_policy& policy, const request_traits& request,
                                         std::span<const std::shared_ptr<gang>> tried) const {
  std::vector<std::shared_ptr<gang>> candidates;
  std::vector<gang_load> loads;
  for (const auto& one : gangs_) {
    if (!one->takes() || !one->serves(request.model)) continue;
    if (std::ranges::find(tried, one) != tried.end()) continue;
    candidates.push_back(one);
    loads.push_back({.name_hash = one->name_hash, .outstanding_tokens = one->outstanding_tokens});
  }
  if (candidates.empty()) return nullptr;
  return candidates.at(policy.choose(loads, request));
}

bool gang_table::unknown_model(const std::string& model) const noexcept {
  bool told = false;
  for (const auto& one : gangs_) {
    if (!one->takes()) continue;
    if (one->serves(model)) return false;
    told = true;
  }
  return told;
}

bool gang_table::any_takes() const noexcept {
  return std::ranges::any_of(gangs_, [](const auto& one) { return one->takes(); });
}

}  // namespace troupe::router
