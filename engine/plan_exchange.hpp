// Step plans from the leader to all ranks, and what belongs to a step: over the world's group.
//
// A message starts with a piece of fixed size, which holds its length and as much of it as fits, so
// that a plan of few sequences takes one broadcast and a large one two. The bytes are those of
// schemas/step_plan.capnp; nothing of a peer's memory layout is on the wire.
//
//   TROUPE_TRY_VOID(engine::broadcast_plan(*world, epoch, plan));          // rank 0
//   TROUPE_TRY(plan, engine::receive_plan(*world, epoch));                 // the others
#pragma once

#include <optional>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "engine/step_plan.hpp"
#include "transport/collective.hpp"

namespace troupe::engine {

// Rank 0: hands the plan to every rank. No plan: the loop of the others ends, all is well.
// Errors: those of the group.
[[nodiscard]] base::result<void> broadcast_plan(transport::collective& world, base::epoch_id epoch,
                                                const step_plan* plan);

// The others: the next plan, or none at the end. Errors: those of the group, invalid_argument.
[[nodiscard]] base::result<std::optional<step_plan>> receive_plan(transport::collective& world,
                                                                  base::epoch_id epoch);

// What a plan's rows with changes_follow are drawn by, during its step: rank 0 hands it to every
// rank. Errors: those of the group; of the others also invalid_argument (it is not this step's).
[[nodiscard]] base::result<void> broadcast_changes(transport::collective& world,
                                                   base::epoch_id epoch,
                                                   const following_changes& changes);
[[nodiscard]] base::result<following_changes> receive_changes(transport::collective& world,
                                                              base::epoch_id epoch);

// A step's tokens from the rank that has them to all: the next plan may begin with one of them.
[[nodiscard]] base::result<void> broadcast_result(transport::collective& world,
                                                  base::epoch_id epoch, int from,
                                                  step_result& result);

}  // namespace troupe::engine
