// How the engine reaches its ranks: threads of this process, or processes of a gang.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/error.hpp"
#include "engine/step_plan.hpp"

namespace troupe::engine {

// What a step's rows with changes_follow are drawn by, in the plan's order. Asked once in a step,
// before its first draw, while the forward pass may still run; it may wait for them.
using changes_source = std::function<base::result<std::vector<schemas::logit_changes>>()>;

// How long a device had nothing to do between the end of a step and the launch of the replayed one
// that follows it: the host's time of a step.
struct device_idle {
  std::uint64_t steps = 0;
  std::chrono::nanoseconds total{0};
};

class executor {
 public:
  executor() = default;
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;
  virtual ~executor() = default;

  // Runs the plan on every rank and gives the last stage's tokens. A last_token_slot is one of the
  // run before. After an error the executor is dead: its ranks no longer agree on what is in the
  // cache. `following` is asked where rows of the plan have changes_follow.
  [[nodiscard]] virtual base::result<step_result> run(const step_plan& plan,
                                                      const changes_source& following) = 0;
  // A plan that was made after the step before it.
  [[nodiscard]] base::result<step_result> run(const step_plan& plan) { return run(plan, {}); }
  [[nodiscard]] virtual base::epoch_id epoch() const noexcept = 0;
  // Of the last stage; no steps where nothing is replayed, or not in this process.
  [[nodiscard]] virtual device_idle idle() const noexcept { return {}; }
};

}  // namespace troupe::engine
