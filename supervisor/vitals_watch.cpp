#include "supervisor/vitals_watch.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/vitals.hpp"

namespace troupe::supervisor {
namespace {

double seconds(std::uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

bool same_tick(const vitals_sample& a, const vitals_sample& b) {
  return a.ticks == b.ticks && a.last_tick_ns == b.last_tick_ns && a.doing == b.doing;
}

}  // namespace

std::optional<std::string> vitals_watch::look(const vitals_sample& seen, base::steady_time now) {
  if (seen.doing != static_cast<std::uint32_t>(base::activity::working)) {
    base_.reset();
    return std::nullopt;
  }
  if (!base_ || !same_tick(base_->sample, seen)) {
    base_ = baseline{seen, now};
    return std::nullopt;
  }
  // The thread's time may become known later than the tick it is counted from.
  if (!base_->sample.cpu_ns) base_->sample.cpu_ns = seen.cpu_ns;
  const std::uint64_t before = base_->sample.cpu_ns.value_or(0);
  const std::uint64_t used = seen.cpu_ns && *seen.cpu_ns > before ? *seen.cpu_ns - before : 0;
  const std::uint64_t longest = std::min(seen.longest_tick_ns, UINT64_MAX / longest_ticks);
  const std::uint64_t allowed = std::max(cpu_ns_min, longest * longest_ticks);
  if (used > allowed) {
    return fmt::format("wedged: {:.1f} s of CPU without progress, {:.1f} s are allowed",
                       seconds(used), seconds(allowed));
  }
  if (now - base_->at > wall_max) {
    return fmt::format("wedged: no progress for {} s while it says that it works",
                       wall_max.count());
  }
  return std::nullopt;
}

}  // namespace troupe::supervisor
