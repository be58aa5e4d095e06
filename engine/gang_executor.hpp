// Ranks as processes: rank 0 broadcasts each plan, runs its share, and has the last stage's tokens;
// the other ranks sit in `follow_plans`. One per epoch; after an error it is dead, as its epoch is.
//
//   engine::gang_executor ranks(*worker, *world, {.tp_size = 2, .pp_size = 1}, epoch);
//   TROUPE_TRY(result, ranks.run(plan));                        // rank 0
//   base::result<void> end = engine::follow_plans(*worker, *world, shape, epoch);   // the others
#pragma once

#include "engine/executor.hpp"
#include "engine/rank_worker.hpp"
#include "transport/groups.hpp"

namespace troupe::engine {

class gang_executor final : public executor {
 public:
  // Lifetime: worker (which has joined the epoch's groups) and world outlive the executor.
  gang_executor(rank_worker& worker, transport::collective& world, transport::world_shape shape,
                base::epoch_id epoch);
  // Tells the other ranks that no plan follows, unless a step failed.
  ~gang_executor() override;

  using executor::run;
  // Errors: those of rank_worker::run, of `following` and of the groups.
  [[nodiscard]] base::result<step_result> run(const step_plan& plan,
                                              const changes_source& following) override;
  [[nodiscard]] base::epoch_id epoch() const noexcept override { return epoch_; }

 private:
  [[nodiscard]] base::result<step_result> run_on_all(const step_plan& plan,
                                                     const changes_source& following);

  rank_worker& worker_;
  transport::collective& world_;
  const transport::world_shape shape_;
  const base::epoch_id epoch_;
  bool dead_ = false;
};

// Runs plans as they come until rank 0 says that no more follow.
// Errors: aborted (the epoch ended), unavailable, and whatever made a step fail on this rank.
[[nodiscard]] base::result<void> follow_plans(rank_worker& worker, transport::collective& world,
                                              transport::world_shape shape, base::epoch_id epoch);

}  // namespace troupe::engine
