#include "transport/groups.hpp"

#include "base/check.hpp"
#include "transport/arguments.hpp"
#include "transport/threads.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace troupe::transport {
namespace {

using handles = std::vector<std::unique_ptr<collective>>;

// Hands the handles of a plan's groups, which begin at `groups[0]`, to the ranks of the world.
handles deal(const split_plan& plan, std::span<handles> groups) {
  handles dealt(plan.seats.size());
  for (std::size_t r = 0; r < dealt.size(); ++r) {
    const split_seat seat = plan.seats[r];
    if (seat.group < 0) continue;
    auto& group = groups[static_cast<std::size_t>(seat.group)];
    dealt[r] = std::move(group[static_cast<std::size_t>(seat.rank)]);
  }
  return dealt;
}

}  // namespace

split_plan plan_split(std::span<const split_choice> choices) {
  std::vector<std::size_t> order(choices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return choices[a].key < choices[b].key; });
  std::map<int, std::vector<std::size_t>> members;
  for (const std::size_t rank : order) {
    if (choices[rank].color) members[*choices[rank].color].push_back(rank);
  }
  split_plan plan;
  plan.seats.resize(choices.size());
  for (const auto& [color, ranks] : members) {
    const int group = static_cast<int>(plan.sizes.size());
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      plan.seats[ranks[i]] = {.group = group, .rank = static_cast<int>(i)};
    }
    plan.sizes.push_back(static_cast<int>(ranks.size()));
  }
  return plan;
}

std::vector<std::unique_ptr<collective>> make_thread_split(std::span<const split_choice> choices,
                                                           base::epoch_id epoch) {
  const split_plan plan = plan_split(choices);
  std::vector<handles> groups = make_thread_groups(plan.sizes, epoch);
  return deal(plan, groups);
}

std::vector<rank_groups> make_thread_world(world_shape shape, base::epoch_id epoch) {
  TROUPE_CHECK(shape.tp_size >= 1 && shape.tp_size <= group_size_max);
  TROUPE_CHECK(shape.pp_size >= 1 && shape.pp_size <= group_size_max / shape.tp_size);
  const int size = shape.tp_size * shape.pp_size;
  std::vector<split_choice> by_stage;
  std::vector<split_choice> by_tp_rank;
  for (int rank = 0; rank < size; ++rank) {
    by_stage.push_back({.color = rank / shape.tp_size, .key = rank});
    by_tp_rank.push_back({.color = rank % shape.tp_size, .key = rank});
  }
  const split_plan tp = plan_split(by_stage);
  const split_plan pp = plan_split(by_tp_rank);
  // All groups in one call: that is what makes them abort together.
  std::vector<int> sizes = {size};
  sizes.insert(sizes.end(), tp.sizes.begin(), tp.sizes.end());
  sizes.insert(sizes.end(), pp.sizes.begin(), pp.sizes.end());
  std::vector<handles> groups = make_thread_groups(sizes, epoch);
  handles tp_handles = deal(tp, std::span(groups).subspan(1, tp.sizes.size()));
  handles pp_handles = deal(pp, std::span(groups).subspan(1 + tp.sizes.size()));
  std::vector<rank_groups> world(static_cast<std::size_t>(size));
  for (std::size_t r = 0; r < world.size(); ++r) {
    world[r] = {.world = std::move(groups[0][r]),
                .tp = std::move(tp_handles[r]),
                .pp = std::move(pp_handles[r])};
  }
  return world;
}

}  // namespace troupe::transport
