// The rule by which a rank is taken for wedged: it says that it works, does not tick, and has used
// much CPU or wall time since. One that waits for another rank is never suspect.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.hpp"

namespace troupe::supervisor {

// One look at a base::rank_vitals page: written by the rank, so any value may come.
struct vitals_sample {
  std::uint64_t ticks = 0;
  std::uint64_t longest_tick_ns = 0;
  std::uint64_t last_tick_ns = 0;
  std::uint32_t doing = 0;
  std::optional<std::uint64_t> cpu_ns = {};  // of the compute thread; none: not known
};

class vitals_watch {
 public:
  // CPU without a tick: a tick is a layer or 16 MiB of weights, milliseconds on any machine.
  static constexpr std::uint64_t cpu_ns_min = 1'000'000'000;
  static constexpr std::uint64_t longest_ticks = 10;
  static constexpr std::chrono::seconds wall_max{10};

  // Forgets what was seen: of a new process, or after this process did not run for a while.
  void restart() noexcept { base_.reset(); }
  // The line that says why the rank is wedged, nothing when it is not.
  [[nodiscard]] std::optional<std::string> look(const vitals_sample& seen, base::steady_time now);

 private:
  struct baseline {
    vitals_sample sample;
    base::steady_time at;
  };
  std::optional<baseline> base_;
};

}  // namespace troupe::supervisor
