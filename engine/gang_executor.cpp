#include "engine/gang_executor.hpp"

#include <optional>
#include <string>
#include <utility>

#include "base/check.hpp"
#include "engine/logit_changes.hpp"
#include "engine/plan_exchange.hpp"

namespace troupe::engine {
namespace {

// The rank whose tokens count: every tensor-parallel rank of the last stage draws the same.
int result_rank(transport::world_shape shape) noexcept {
  return (shape.pp_size - 1) * shape.tp_size;
}

// The end of a step on every rank: with one stage each has drawn the tokens itself.
base::result<step_result> settle(rank_worker& worker, transport::collective& world,
                                 transport::world_shape shape, base::epoch_id epoch,
                                 step_result own) {
  if (shape.pp_size > 1) {
    TROUPE_TRY_VOID(broadcast_result(world, epoch, result_rank(shape), own));
  }
  worker.remember(own);
  return own;
}

}  // namespace

gang_executor::gang_executor(rank_worker& worker, transport::collective& world,
                             transport::world_shape shape, base::epoch_id epoch)
    : worker_(worker), world_(world), shape_(shape), epoch_(epoch) {}

gang_executor::~gang_executor() {
  // Best effort: a group that is gone has told the others already.
  if (!dead_) static_cast<void>(broadcast_plan(world_, epoch_, nullptr));
}

base::result<step_result> gang_executor::run(const step_plan& plan,
                                             const changes_source& following) {
  if (dead_) {
    return base::fail(base::error_code::failed_precondition, "engine",
                      "a rank failed in an earlier step");
  }
  auto result = run_on_all(plan, following);
  if (!result) {
    dead_ = true;
    world_.abort();  // the others may wait for this rank in a collective that it will not reach
  }
  return result;
}

base::result<step_result> gang_executor::run_on_all(const step_plan& plan,
                                                    const changes_source& following) {
  TROUPE_TRY_VOID(broadcast_plan(world_, epoch_, &plan));
  const auto hand_out = [&]() -> base::result<std::vector<logit_changes>> {
    TROUPE_CHECK(following != nullptr);
    TROUPE_TRY(rows, following());
    following_changes changes{.step = plan.step, .rows = std::move(rows)};
    TROUPE_TRY_VOID(broadcast_changes(world_, epoch_, changes));
    return std::move(changes.rows);
  };
  TROUPE_TRY(own, worker_.run(plan, hand_out));
  return settle(worker_, world_, shape_, epoch_, std::move(own));
}

base::result<void> follow_plans(rank_worker& worker, transport::collective& world,
                                transport::world_shape shape, base::epoch_id epoch) {
  const auto follow = [&]() -> base::result<void> {
    for (;;) {
      TROUPE_TRY(plan, receive_plan(world, epoch));
      if (!plan) return {};
      const auto handed_out = [&]() -> base::result<std::vector<logit_changes>> {
        TROUPE_TRY(changes, receive_changes(world, epoch));
        if (changes.step == plan->step) return std::move(changes.rows);
        return base::fail(base::error_code::invalid_argument, "engine",
                          "changes of step " + std::to_string(changes.step) + " came in step " +
                              std::to_string(plan->step));
      };
      TROUPE_TRY(own, worker.run(*plan, handed_out));
      TROUPE_TRY_VOID(settle(worker, world, shape, epoch, std::move(own)));
    }
  };
  base::result<void> outcome = follow();
  if (!outcome) world.abort();
  return outcome;
}

}  // namespace troupe::engine
