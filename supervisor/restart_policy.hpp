// When a lost rank is started again: the first time at once, then after 0.25, 0.5, 1, 2, 4 ... 30
// s, from the beginning after ten minutes without a loss; and not at all past the bound.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>

#include "base/clock.hpp"

namespace troupe::supervisor {

// More than `restarts` of one rank within `window`: the gang is lost, exit 4.
struct restart_bound {
  int restarts = 8;
  std::chrono::minutes window{10};
};

class restart_policy {
 public:
  static constexpr std::chrono::milliseconds first_delay{250};
  static constexpr std::chrono::milliseconds delay_max{30'000};
  static constexpr std::chrono::minutes forgotten_after{10};

  explicit restart_policy(restart_bound bound) : bound_(bound) {}

  // A rank that ran since `started` is lost `now`: when to start it, or nothing past the bound.
  [[nodiscard]] std::optional<base::steady_time> lost(base::steady_time started,
                                                      base::steady_time now);
  // Of this rank so far.
  [[nodiscard]] std::uint32_t restarts() const noexcept { return total_; }

 private:
  restart_bound bound_;
  std::deque<base::steady_time> recent_;  // restarts within the window
  std::uint32_t streak_ = 0;              // restarts since it last ran for long
  std::uint32_t total_ = 0;
};

}  // namespace troupe::supervisor
