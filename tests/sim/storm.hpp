// Five minutes of faults of every kind, then fair weather, in which the gang must form again.
#pragma once

#include "tests/sim/world.hpp"

namespace troupe::sim {

struct outcome {
  std::vector<std::string> violations;
  bool formed = false;        // it answered before the storm's end plus healing_max, and still does
  milliseconds healed_in{0};  // from the storm's end to the epoch that stayed
  std::uint64_t steps = 0;
  std::uint64_t stale_plans = 0;
  std::uint64_t epochs = 0;  // that ended
};

// The longest chain of what is left of a storm: a connection noticed silent (10 s), a load tried
// again (45 s) that takes 8 s, a formation that times out (15 s) and its pause (7.5 s), a dial (5
// s).
inline constexpr milliseconds healing_max{120'000};
inline constexpr milliseconds calm_after{30'000};

void one_fault(world& around);
[[nodiscard]] outcome run_storm(const world_options& options);

}  // namespace troupe::sim
