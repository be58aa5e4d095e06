// How a rank shows that it gets on: one page shared with the supervisor, which only reads it.
//
// The rank's compute thread ticks per layer and per loaded 16 MiB and says what it is doing. A rank
// that waits in a collective is never suspect: the one it waits for is. The supervisor takes a rank
// for wedged when it is `working`, has not ticked, and has used much CPU or wall time since.
//
//   const base::working working(&vitals, base::cpu_tells::progress);
//   ... vitals.tick(); ...
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "base/clock.hpp"

namespace troupe::base {

enum class activity : std::uint32_t { idle = 0, working = 1, waiting = 2 };

// Lives in memory shared between processes: lock-free atomics only, no pointers. Zero is valid.
struct rank_vitals {
  static constexpr std::uint64_t load_tick_bytes = std::uint64_t{16} << 20;

  std::atomic<std::uint64_t> ticks{0};
  std::atomic<std::uint64_t> longest_tick_ns{0};  // between two ticks while working
  std::atomic<std::uint64_t> last_tick_ns{0};     // steady clock of the machine; 0: none yet
  std::atomic<std::uint32_t> doing{0};            // an `activity`
  std::atomic<std::int32_t> thread_id{0};         // the compute thread's, for its CPU time

  void begin(activity what) noexcept {
    last_tick_ns.store(steady_ns(), std::memory_order_relaxed);
    doing.store(static_cast<std::uint32_t>(what), std::memory_order_release);
  }
  // Several threads may tick at once; a tick that is lost then does no harm.
  void tick() noexcept {
    const std::uint64_t now_ns = steady_ns();
    const std::uint64_t before = last_tick_ns.load(std::memory_order_relaxed);
    const bool working =
        doing.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(activity::working);
    if (working && before != 0 && now_ns > before &&
        now_ns - before > longest_tick_ns.load(std::memory_order_relaxed)) {
      longest_tick_ns.store(now_ns - before, std::memory_order_relaxed);
    }
    last_tick_ns.store(now_ns, std::memory_order_relaxed);
    ticks.fetch_add(1, std::memory_order_release);
  }
};

// Waits for other ranks while it lives, then does again what it did.
class waiting_scope {
 public:
  explicit waiting_scope(rank_vitals& vitals) noexcept
      : vitals_(vitals),
        before_(static_cast<activity>(vitals.doing.load(std::memory_order_relaxed))) {
    vitals_.begin(activity::waiting);
  }
  waiting_scope(const waiting_scope&) = delete;
  waiting_scope& operator=(const waiting_scope&) = delete;
  ~waiting_scope() { vitals_.begin(before_); }

 private:
  rank_vitals& vitals_;
  const activity before_;
};

// Whether a thread that uses CPU gets on; one that spins for a device may not.
enum class cpu_tells : std::uint8_t { progress, nothing };

// While it lives the calling thread says that it works; then again what was said before.
class working {
 public:
  // `vitals` may be null; else they outlive this.
  working(rank_vitals* vitals, cpu_tells tells) noexcept : vitals_(vitals) {
    if (vitals_ == nullptr) return;
    before_ = static_cast<activity>(vitals_->doing.load(std::memory_order_relaxed));
    const std::int32_t thread = tells == cpu_tells::progress ? ::gettid() : 0;
    thread_before_ = vitals_->thread_id.exchange(thread, std::memory_order_relaxed);
    vitals_->begin(activity::working);
  }
  working(const working&) = delete;
  working& operator=(const working&) = delete;
  ~working() {
    if (vitals_ == nullptr) return;
    vitals_->thread_id.store(thread_before_, std::memory_order_relaxed);
    vitals_->begin(before_);
  }

 private:
  rank_vitals* vitals_;
  activity before_ = activity::idle;
  std::int32_t thread_before_ = 0;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<rank_vitals>);

}  // namespace troupe::base
