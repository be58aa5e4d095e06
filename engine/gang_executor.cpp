#include "engine/gang_executor.hpp"

#include <optional>
#include <utility>

#include "engine/plan_exchange.hpp"

namespace troupe::engine {
namespace {

// The rank whose tokens count: every tensor-parallel rank of the last stage draws the same.
int result_rank(transport::world_shape shape) noexcept {
  return (shape.pp_size - 1) * shape.tp_size;
}

}  // namespace

gang_executor::gang_executor(rank_worker& worker, transport::collective& world,
                             transport::world_shape shape, base::epoch_id epoch)
    : worker_(worker), world_(world), shape_(shape), epoch_(epoch) {}

gang_executor::~gang_executor() {
  // Best effort: a group that is gone has told the others already.
  if (!dead_) static_cast<void>(broadcast_plan(world_, epoch_, nullptr));
}

base::result<step_result> gang_executor::run(const step_plan& plan) {
  if (dead_) {
    return base::fail(base::error_code::failed_precondition, "engine",
                      "a rank failed in an earlier step");
  }
  auto result = run_on_all(plan);
  if (!result) {
    dead_ = true;
    world_.abort();  // the others may wait for this rank in a collective that it will not reach
  }
  return result;
}

base::result<step_result> gang_executor::run_on_all(const step_plan& plan) {
  TROUPE_TRY_VOID(broadcast_plan(world_, epoch_, &plan));
  TROUPE_TRY(own, worker_.run(plan));
  const int last = result_rank(shape_);
  if (last == 0) return std::move(own);
  return receive_result(world_, epoch_, last);
}

base::result<void> follow_plans(rank_worker& worker, transport::collective& world,
                                transport::world_shape shape, base::epoch_id epoch) {
  const auto follow = [&]() -> base::result<void> {
    for (;;) {
      TROUPE_TRY(plan, receive_plan(world, epoch));
      if (!plan) return {};
      TROUPE_TRY(result, worker.run(*plan));
      if (world.rank() == result_rank(shape)) {
        TROUPE_TRY_VOID(send_result(world, epoch, result));
      }
    }
  };
  base::result<void> outcome = follow();
  if (!outcome) world.abort();
  return outcome;
}

}  // namespace troupe::engine
