// What all machines share: time that is handed in, chance that is handed in, back-off.
//
// A machine is `step(event, now) -> effects`: no clock, no thread, no I/O. Its shell carries the
// effects out in their order and turns what comes back into events.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace troupe::actors {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

// What a process ends with.
inline constexpr int exit_fine = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_refused = 3;
inline constexpr int exit_lost_gang = 4;

// Input that can never work (a model, a manifest) is refused; what may work in another life of the
// process has failed.
[[nodiscard]] constexpr int exit_code_of(base::error_code code) noexcept {
  switch (code) {
    case base::error_code::invalid_argument:
    case base::error_code::not_found:
    case base::error_code::unimplemented:
    case base::error_code::data_loss:
      return exit_refused;
    default:
      return exit_failed;
  }
}

// One control connection as the leader counts them; never used twice while its process lives.
using connection_id = base::strong_id<struct connection_tag, std::uint64_t>;

// A deadline that a machine keeps; none: nothing to do then.
using deadline = std::optional<time_point>;

// Whether it has passed; it is none afterwards.
[[nodiscard]] inline bool take_due(deadline& when, time_point now) noexcept {
  if (!when || now < *when) return false;
  when.reset();
  return true;
}

[[nodiscard]] inline deadline sooner(deadline one, deadline other) noexcept {
  if (!one || !other) return one ? one : other;
  return std::min(*one, *other);
}

// The chance in back-off: a function of its seed (splitmix64, Steele et al. 2014).
class jitter {
 public:
  explicit jitter(std::uint64_t seed) noexcept : state_(seed) {}

  // Range: between half of `mean` and one and a half.
  [[nodiscard]] milliseconds around(milliseconds mean) noexcept {
    const auto span = static_cast<std::uint64_t>(std::max<std::int64_t>(mean.count(), 1));
    return milliseconds(static_cast<std::int64_t>(span / 2 + next() % (span + 1)));
  }

 private:
  std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

  std::uint64_t state_;
};

// Doubles from `first` to `last`; reset() when what was tried has worked.
class back_off {
 public:
  back_off(milliseconds first, milliseconds last) noexcept : first_(first), last_(last) {}

  [[nodiscard]] milliseconds next(jitter& chance) noexcept {
    const milliseconds mean = mean_ == milliseconds(0) ? first_ : mean_;
    mean_ = std::min(mean * 2, last_);
    return chance.around(mean);
  }
  void reset() noexcept { mean_ = milliseconds(0); }

 private:
  milliseconds first_;
  milliseconds last_;
  milliseconds mean_{0};
};

}  // namespace troupe::actors
