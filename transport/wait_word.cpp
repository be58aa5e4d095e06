#include "transport/wait_word.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace troupe::transport {
namespace {

// FUTEX_WAIT returns at once when the word is no longer `seen`; spurious returns are the caller's
// loop to handle.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen) noexcept {
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

constexpr int pauses_per_yield = 32;

void futex_wake_all(const std::atomic<std::uint32_t>& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

void spin_pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int spins_for(int ranks) noexcept {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  // The cores this process may use, not those of the machine.
  const bool known = sched_getaffinity(0, sizeof cores, &cores) == 0;
  return spins_for(ranks, known ? CPU_COUNT(&cores) : 1);
}

int spins_for(int ranks, int cores) noexcept {
  // A pause is 10 to 50 ns: 20 to 100 us when each rank has a core, which covers the uneven ends of
  // a step; about a futex call's own time when not, since then the awaited rank needs this core.
  return ranks <= cores ? 2000 : 40;
}

void wait_word::advance() noexcept {
  value_.fetch_add(step, std::memory_order_seq_cst);
  wake();
}

void wait_word::mark(std::uint32_t bits) noexcept {
  value_.fetch_or(bits, std::memory_order_seq_cst);
  wake();
}

// Either this sees the sleeper, or the sleeper's futex call sees the new value: both sides write
// one word and read the other in sequentially consistent order.
void wait_word::wake() const noexcept {
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(value_);
}

std::uint32_t wait_word::wait_while(std::uint32_t seen, int spins) const noexcept {
  for (int i = 0; i < spins; ++i) {
    if (const std::uint32_t now = load(); now != seen) return now;
    spin_pause();
    // The scheduler may have put the awaited thread on this very core, where it cannot run while
    // this one spins; without the yield two ranks stayed there and took 26 us a barrier, not 1.
    if (i % pauses_per_yield == pauses_per_yield - 1) sched_yield();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  std::uint32_t now = value_.load(std::memory_order_seq_cst);
  while (now == seen) {
    futex_wait(value_, seen);
    now = value_.load(std::memory_order_seq_cst);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  return now;
}

}  // namespace troupe::transport
