// A counter that threads wait on: a bounded spin, then a futex. Two low bits mark that waiting has
// become pointless, so that a waiter watches one word only.
//
// Spinning for ever is fastest while every waiter has a core and ruinous when not: 8 ranks on 2
// cores took 12.8 ms a step, with a bound 0.2 ms. Any thread may call anything.
#pragma once

#include <atomic>
#include <cstdint>

namespace troupe::transport {

class wait_word {
 public:
  static constexpr std::uint32_t aborted_mark = 1;
  static constexpr std::uint32_t gone_mark = 2;
  static constexpr std::uint32_t step = 4;  // the count is in the bits above; it wraps

  [[nodiscard]] std::uint32_t load() const noexcept {
    return value_.load(std::memory_order_acquire);
  }
  [[nodiscard]] static std::uint32_t count(std::uint32_t word) noexcept { return word / step; }

  // Adds one to the count and wakes who waits. Publishes all writes made before.
  void advance() noexcept;
  // Sets a mark, for good, and wakes who waits.
  void mark(std::uint32_t bits) noexcept;
  // Returns the word once it differs from `seen`. The caller has looked at the marks in `seen`.
  [[nodiscard]] std::uint32_t wait_while(std::uint32_t seen, int spins) const noexcept;

 private:
  void wake() const noexcept;

  alignas(64) std::atomic<std::uint32_t> value_{0};
  mutable std::atomic<std::uint32_t> sleepers_{0};
};

// Tells the core that this is a wait: less power, and the neighbour hyperthread gets the time.
void spin_pause() noexcept;

// How often to look before sleeping, for `ranks` threads that wait on each other.
[[nodiscard]] int spins_for(int ranks) noexcept;
// The same for ranks that may run on `cores` cores between them.
[[nodiscard]] int spins_for(int ranks, int cores) noexcept;

}  // namespace troupe::transport
