#include "lws/local_groups.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

namespace troupe::lws {

local_groups::local_groups(workload first, groups_options options, pod_hands& hands)
    : wanted_(std::make_shared<const workload>(std::move(first))),
      options_(std::move(options)),
      hands_(hands) {}

pod_identity local_groups::identity(const workload& of, int number, int index) const {
  const std::string leader = fmt::format("{}-{}", of.name, number);
  const std::string name = index == 0 ? leader : fmt::format("{}-{}", leader, index);
  return {.name = name,
          .subdomain = of.unique_subdomains ? leader : of.name,
          .address = options_.address_of(name),
          .group = number,
          .index = index};
}

std::vector<pod_identity> local_groups::identities() const {
  std::vector<pod_identity> all;
  const int most = std::max(groups_.empty() ? 0 : groups_.rbegin()->first + 1,
                            wanted_->replicas + wanted_->max_surge);
  for (int number = 0; number < most; ++number) {
    for (int index = 0; index < wanted_->size; ++index) {
      all.push_back(identity(*wanted_, number, index));
    }
  }
  return all;
}

void local_groups::update(workload next) {
  wanted_ = std::make_shared<const workload>(std::move(next));
}

void local_groups::stop(time_point now) {
  stopping_ = true;
  for (auto& [number, one] : groups_) {
    one.going = true;
    for (const auto& pod : one.pods) pod->stop(now, true);
  }
}

void local_groups::end(group& one, time_point now) {
  one.going = true;
  for (const auto& pod : one.pods) pod->stop(now);
}

// With LeaderReady the workers come when their leader is.
void local_groups::make_pods(int number, group& one) {
  const bool waits = one.of->leader_first && (one.pods.empty() || !one.pods.front()->ready());
  const int count = waits ? 1 : one.of->size;
  for (int index = static_cast<int>(one.pods.size()); index < count; ++index) {
    pod_identity who = identity(*one.of, number, index);
    who.number = ++pods_made_;
    one.pods.push_back(
        std::make_unique<local_pod>(std::move(who), one.of, hands_, options_.back_off));
  }
}

bool local_groups::is_ready(const group& one) {
  return !one.going && one.pods.size() == static_cast<std::size_t>(one.of->size) &&
         std::ranges::all_of(one.pods, [](const auto& pod) { return pod->ready(); });
}

// Those beyond the replicas come for a rollout, and stay until all the others are ready again.
int local_groups::groups_wanted() const {
  if (stopping_) return 0;
  const int replicas = wanted_->replicas;
  const bool there = !groups_.empty() && groups_.rbegin()->first >= replicas;
  return replicas + (rolls() || (there && !first_are_ready()) ? wanted_->max_surge : 0);
}

bool local_groups::first_are_ready() const {
  for (int number = 0; number < wanted_->replicas; ++number) {
    const auto found = groups_.find(number);
    if (found == groups_.end() || !is_ready(found->second)) return false;
  }
  return true;
}

bool local_groups::rolls() const {
  return std::ranges::any_of(groups_, [this](const auto& entry) {
    return entry.first >= wanted_->partition && entry.first < wanted_->replicas &&
           entry.second.of->revision != wanted_->revision;
  });
}

void local_groups::tick(time_point now) {
  const int count = groups_wanted();
  for (int number = 0; number < count; ++number) {
    group& one = groups_[number];
    if (!one.of) one.of = wanted_;
  }
  for (auto& [number, one] : groups_) {
    if (number >= count && !one.going) end(one, now);
    keep(number, one, now);
  }
  if (!stopping_) roll(now);
  std::erase_if(groups_, [&](const auto& entry) {
    return entry.second.going && entry.second.pods.empty() && entry.first >= count;
  });
}

void local_groups::keep(int number, group& one, time_point now) {
  if (one.going) {
    for (const auto& pod : one.pods) pod->tick(now);
    if (!std::ranges::all_of(one.pods, [](const auto& pod) { return pod->ended(); })) return;
    one.pods.clear();
    if (number >= groups_wanted()) return;
    // Below the partition the former revision comes again.
    one = {.of = number < wanted_->partition ? one.of : wanted_};
  }
  make_pods(number, one);
  for (const auto& pod : one.pods) pod->tick(now);
  const bool restarted =
      std::ranges::any_of(one.pods, [](const auto& pod) { return pod->restarts() > 0; });
  const bool recreates = one.of->restart == restart_rule::on_pod_restart ||
                         (one.of->restart == restart_rule::after_start && one.was_started);
  if (restarted && recreates && !one.going) {
    hands_.tell(*one.pods.front(), "a container of its group has ended: the group comes anew");
    end(one, now);
    return;
  }
  one.was_started = one.was_started ||
                    (one.pods.size() == static_cast<std::size_t>(one.of->size) &&
                     std::ranges::all_of(one.pods, [](const auto& pod) { return pod->started(); }));
}

// From the last group to the first, as many at a time as may be missing; what is not ready already
// counts.
void local_groups::roll(time_point now) {
  if (!rolls()) return;
  int missing = 0;
  int spare = 0;
  for (const auto& [number, one] : groups_) {
    if (number < wanted_->replicas) {
      missing += is_ready(one) ? 0 : 1;
    } else if (is_ready(one) && one.of->revision == wanted_->revision) {
      ++spare;
    }
  }
  for (int number = wanted_->replicas - 1; number >= wanted_->partition; --number) {
    const auto found = groups_.find(number);
    if (found == groups_.end()) continue;
    group& one = found->second;
    if (one.of->revision == wanted_->revision || one.going) continue;
    const bool lost_already = !is_ready(one);
    if (!lost_already && missing >= wanted_->max_unavailable + spare) return;
    if (!lost_already) ++missing;
    end(one, now);
  }
}

bool local_groups::ready() const { return !stopping_ && !rolls() && first_are_ready(); }

std::vector<local_pod*> local_groups::pods() const {
  std::vector<local_pod*> all;
  for (const auto& [number, one] : groups_) {
    for (const auto& pod : one.pods) all.push_back(pod.get());
  }
  return all;
}

}  // namespace troupe::lws
