#include "kernels/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.hpp"

// How it works. `gate` is one futex word: [number of the job : 20][open : 1][workers inside : 11].
// The caller writes the job, opens the gate and takes indices like everyone. A worker may enter
// only while the gate is open, so one that the system runs late is never waited for: the caller has
// done its share, closed the gate and gone on. This is what keeps many pools on few cores moving.

namespace troupe::kernels {
namespace {

constexpr std::uint32_t inside_mask = 0x7FF;
constexpr std::uint32_t open_bit = 0x800;
constexpr std::uint32_t job_step = 0x1000;
constexpr std::uint32_t for_workers = 1;  // futex bit sets: who a wake is meant for
constexpr std::uint32_t for_caller = 2;

// Longer than the serial pieces between the ops of one step (a few microseconds), shorter than a
// scheduler's slice, of which a spinning thread deprives somebody else.
constexpr std::chrono::microseconds spin_limit{40};
constexpr int spins_between_clock_reads = 32;
// Indices that the caller takes between two ticks: milliseconds where they are long, and not seen
// where they are short.
constexpr std::int64_t indices_a_tick = 32;

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::uint32_t who) noexcept {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_BITSET_PRIVATE, seen,
          nullptr, nullptr, who);
}

void futex_wake(std::atomic<std::uint32_t>& word, std::uint32_t who, std::int64_t most) noexcept {
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_BITSET_PRIVATE,
          static_cast<int>(std::min<std::int64_t>(most, INT_MAX)), nullptr, nullptr, who);
}

// Spins until ready(value of the word) or the limit; gives the last value seen.
template <class Ready>
std::uint32_t spin(const std::atomic<std::uint32_t>& word, const Ready& ready) noexcept {
  const auto deadline = std::chrono::steady_clock::now() + spin_limit;
  for (;;) {
    for (int i = 0; i < spins_between_clock_reads; ++i) {
      const std::uint32_t value = word.load(std::memory_order_acquire);
      if (ready(value)) return value;
      relax();
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return word.load(std::memory_order_acquire);
    }
  }
}

}  // namespace

struct thread_pool::state {
  // The job: written by the caller while the gate is shut and nobody is inside.
  task function = nullptr;
  const void* context = nullptr;
  std::int64_t count = 0;

  base::rank_vitals* vitals = nullptr;

  alignas(64) std::atomic<std::uint32_t> gate{0};
  std::atomic<int> sleepers{0};  // workers in, or about to enter, the futex
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<std::int64_t> next{0};
  std::vector<std::thread> workers;

  void take_indices(int thread) {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      function(context, index, thread);
    }
  }

  void take_indices_as_caller() {
    for (std::int64_t taken = 1;; ++taken) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      function(context, index, 0);
      if (vitals != nullptr && taken % indices_a_tick == 0) vitals->tick();
    }
  }

  void leave() {
    const std::uint32_t before = gate.fetch_sub(1);
    const bool last_of_shut = (before & inside_mask) == 1 && (before & open_bit) == 0;
    if (last_of_shut && caller_sleeps.load()) futex_wake(gate, for_caller, 1);
  }

  void work(int thread) {
    std::uint32_t served = 0;  // the job number this worker saw last; 0 is never open at first
    for (;;) {
      const auto ready = [&](std::uint32_t value) {
        return stop.load(std::memory_order_relaxed) ||
               ((value & open_bit) != 0 && value / job_step != served);
      };
      std::uint32_t seen = spin(gate, ready);
      if (stop.load()) return;
      if (!ready(seen)) {
        sleepers.fetch_add(1);
        seen = gate.load();
        if (!ready(seen)) futex_wait(gate, seen, for_workers);
        sleepers.fetch_sub(1);
        continue;
      }
      if (!gate.compare_exchange_strong(seen, seen + 1)) continue;
      served = seen / job_step;
      take_indices(thread);
      leave();
    }
  }

  void wait_until_empty() {
    const auto empty = [](std::uint32_t value) { return (value & inside_mask) == 0; };
    std::uint32_t seen = spin(gate, empty);
    if (empty(seen)) return;
    caller_sleeps.store(true);
    for (seen = gate.load(); !empty(seen); seen = gate.load()) futex_wait(gate, seen, for_caller);
    caller_sleeps.store(false);
  }
};

thread_pool::thread_pool(thread_pool_options options) : state_(std::make_unique<state>()) {
  TROUPE_CHECK(options.threads >= 1 && options.threads <= 1024);
  state_->vitals = options.vitals;
  for (int thread = 1; thread < options.threads; ++thread) {
    state_->workers.emplace_back([shared = state_.get(), thread] { shared->work(thread); });
  }
}

thread_pool::~thread_pool() {
  state_->stop.store(true);
  state_->gate.fetch_add(job_step);  // so that nobody goes to sleep on the old value
  futex_wake(state_->gate, for_workers, INT_MAX);
  for (std::thread& worker : state_->workers) worker.join();
}

int thread_pool::threads() const noexcept { return static_cast<int>(state_->workers.size()) + 1; }

void thread_pool::run(std::int64_t count, task function, const void* context) {
  TROUPE_CHECK(count >= 0);
  if (count <= 1 || state_->workers.empty()) {
    for (std::int64_t index = 0; index < count; ++index) {
      function(context, index, 0);
      if (state_->vitals != nullptr && (index + 1) % indices_a_tick == 0) state_->vitals->tick();
    }
    return;
  }
  state& shared = *state_;
  shared.function = function;
  shared.context = context;
  shared.count = count;
  shared.next.store(0, std::memory_order_relaxed);
  shared.gate.store((shared.gate.load(std::memory_order_relaxed) + job_step) | open_bit);
  if (shared.sleepers.load() > 0) futex_wake(shared.gate, for_workers, count - 1);
  shared.take_indices_as_caller();
  shared.gate.fetch_and(~open_bit);
  shared.wait_until_empty();
}

}  // namespace troupe::kernels
