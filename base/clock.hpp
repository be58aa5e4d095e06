// The steady clock of the machine, the same for all of its processes. Logic takes `now` as an
// argument; only shells read the clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace troupe::base {

using steady_time = std::chrono::steady_clock::time_point;

[[nodiscard]] inline steady_time steady_now() noexcept { return std::chrono::steady_clock::now(); }

// As base::rank_vitals takes it. Units: ns since an arbitrary moment of this boot.
[[nodiscard]] inline std::uint64_t steady_ns() noexcept {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(steady_now().time_since_epoch())
          .count());
}

}  // namespace troupe::base
