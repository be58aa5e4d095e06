#include "supervisor/restart_policy.hpp"

#include <algorithm>
#include <utility>

namespace troupe::supervisor {

std::optional<base::steady_time> restart_policy::lost(base::steady_time started,
                                                      base::steady_time now) {
  while (!recent_.empty() && now - recent_.front() >= bound_.window) recent_.pop_front();
  if (std::cmp_greater_equal(recent_.size(), bound_.restarts)) return std::nullopt;
  if (now - started >= forgotten_after) streak_ = 0;
  std::chrono::milliseconds delay{0};
  if (streak_ > 0) {
    // 2^7 x 250 ms is past the largest delay.
    delay = std::min(delay_max, first_delay * (1 << std::min(streak_ - 1, 7U)));
  }
  ++streak_;
  ++total_;
  recent_.push_back(now);
  return now + delay;
}

}  // namespace troupe::supervisor
