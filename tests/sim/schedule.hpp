// Virtual time: what happens, in the order of its time and then of its being planned. And the one
// source of chance of a simulation. A run is a function of its seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <queue>
#include <tuple>
#include <utility>
#include <vector>

#include "actors/machine.hpp"

namespace troupe::sim {

using actors::milliseconds;
using actors::time_point;
using microseconds = std::chrono::microseconds;

class chance {
 public:
  explicit chance(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }
  [[nodiscard]] int between(int first, int last) {
    return first + static_cast<int>(next() % static_cast<std::uint64_t>(last - first + 1));
  }
  [[nodiscard]] bool hits(double probability) {
    return static_cast<double>(next() >> 11U) * 0x1.0p-53 < probability;
  }
  [[nodiscard]] microseconds pause(microseconds shortest, microseconds longest) {
    const auto span = static_cast<std::uint64_t>((longest - shortest).count() + 1);
    return shortest + microseconds(static_cast<std::int64_t>(next() % span));
  }

 private:
  std::uint64_t state_;
};

class schedule {
 public:
  using action = std::function<void()>;

  [[nodiscard]] time_point now() const { return now_; }
  void at(time_point when, action happens) {
    queue_.push({std::max(when, now_), planned_++, std::move(happens)});
  }
  void after(std::chrono::nanoseconds pause, action happens) {
    at(now_ + pause, std::move(happens));
  }

  void run_until(time_point end) {
    while (!queue_.empty() && queue_.top().when <= end) {
      // The queue's top is const only to keep its order, which the action has no part in.
      entry next = std::move(const_cast<entry&>(queue_.top()));
      queue_.pop();
      now_ = next.when;
      next.happens();
    }
    now_ = end;
  }

 private:
  struct entry {
    time_point when;
    std::uint64_t order = 0;
    action happens;
    bool operator<(const entry& other) const {
      return std::tie(other.when, other.order) < std::tie(when, order);
    }
  };
  time_point now_{std::chrono::hours(1)};
  std::uint64_t planned_ = 0;
  std::priority_queue<entry> queue_;
};

}  // namespace troupe::sim
