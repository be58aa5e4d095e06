// How the engine reaches its ranks: threads of this process now, processes of a gang later.
#pragma once

#include "base/error.hpp"
#include "engine/step_plan.hpp"

namespace troupe::engine {

class executor {
 public:
  executor() = default;
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;
  virtual ~executor() = default;

  // Runs the plan on every rank and gives the last stage's tokens. After an error the executor is
  // dead: its ranks no longer agree on what is in the cache.
  [[nodiscard]] virtual base::result<step_result> run(const step_plan& plan) = 0;
  [[nodiscard]] virtual base::epoch_id epoch() const noexcept = 0;
};

}  // namespace troupe::engine
