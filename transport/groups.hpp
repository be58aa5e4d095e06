// A gang's ranks and the groups they form: tensor-parallel groups of neighbours, and one pipeline
// group through the stages for each place in them. rank = pp_rank * tp_size + tp_rank.
//
//   std::vector<rank_groups> world = make_thread_world({.tp_size = 4, .pp_size = 2}, epoch);
//   world[5].tp->rank() == 1;  world[5].pp->rank() == 1;   // for thread 5
#pragma once

#include "transport/collective.hpp"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace troupe::transport {

struct world_shape {
  int tp_size = 1;
  int pp_size = 1;
};

// One rank's handles. Destroyed by the thread that used them, or after it has ended.
struct rank_groups {
  std::unique_ptr<collective> world;
  std::unique_ptr<collective> tp;  // the ranks of this stage, by tp_rank
  std::unique_ptr<collective> pp;  // the ranks with this tp_rank, by stage
};

// What a rank says when the world is split: ranks of one color form a group, ordered by key, then
// by rank. No color: in no group.
struct split_choice {
  std::optional<int> color;
  int key = 0;
};

struct split_seat {
  int group = -1;  // index into split_plan::sizes; -1: in none
  int rank = 0;    // within the group
};

// The groups of a split. Groups are numbered by ascending color.
struct split_plan {
  std::vector<int> sizes;
  std::vector<split_seat> seats;  // one for each rank of the world
};

// Shape: choices[r] is what rank r of the world says.
[[nodiscard]] split_plan plan_split(std::span<const split_choice> choices);

// One handle for each rank of the world, null without a color; all abort together.
[[nodiscard]] std::vector<std::unique_ptr<collective>> make_thread_split(
    std::span<const split_choice> choices, base::epoch_id epoch);

// One entry for each rank of the world. A gang is fail-stop: abort() on any handle of any rank ends
// the waits of all. Range: both sizes >= 1, product <= 64 (the caller has checked the user's flags)
[[nodiscard]] std::vector<rank_groups> make_thread_world(world_shape shape, base::epoch_id epoch);

}  // namespace troupe::transport
