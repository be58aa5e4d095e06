// How the ranks of a segment wait for each other and wake each other. Internal to the shared-memory
// data plane.
//
// All sleepers of a segment sleep on one word, the epoch word, each with its own bit of the futex's
// bitset, so that a rank is woken alone, while who ends the epoch marks the word and wakes all in
// one system call (FUTEX_WAKE_OP). The kernel does both under one lock: a process killed in the act
// has done both or neither, and a rank about to sleep finds the word changed. No rank, dead or
// stopped, is needed for another one to wake.
//
// No wake-up is missed between ranks: a waiter announces itself (`awaits`), reads the word and
// looks at its condition once more; who makes the condition true looks at `awaits` afterwards and,
// when it finds the waiter there, moves the word and wakes. All these are sequentially consistent,
// so either the waiter sees the condition, or the other sees the waiter and the word has moved
// since the waiter read it, which the futex call notices.
#pragma once

#include "base/error.hpp"
#include "transport/shared_memory_segment.hpp"
#include "transport/wait_word.hpp"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

namespace troupe::transport {

using wait_deadline = std::chrono::steady_clock::time_point;

class shared_bell {
 public:
  shared_bell(const shared_segment& segment, int rank) noexcept;

  [[nodiscard]] bool aborted() const noexcept {
    return (control_.word.load(std::memory_order_acquire) & epoch_over) != 0;
  }
  void abort() noexcept { abort_shared_epoch(control_); }

  // Publishes a change to this rank's `index`, which `peer` may be waiting for.
  void publish(std::atomic<std::uint64_t>& index, std::uint64_t value, int peer) noexcept {
    index.store(value, std::memory_order_seq_cst);
    ring(peer);
  }
  // To be called after a sequentially consistent store that `peer` may be waiting for.
  void ring(int peer) noexcept {
    const std::uint64_t awaited = segment_.rank(peer).awaits.load(std::memory_order_seq_cst);
    if ((awaited >> rank_ & 1) != 0) wake(peer);
  }

  // Returns once ready() is true: a cheap look at indices in the segment, by sequentially
  // consistent loads. `peers` has a bit for each rank whose action can make it true. doubt() is
  // called before the rank sleeps and ends the wait by an error when it can never end well.
  // Errors: aborted, unavailable (a peer left), deadline_exceeded, doubt()'s.
  template <class Ready, class Doubt>
  base::result<void> wait(std::uint64_t peers, Ready ready, Doubt doubt,
                          wait_deadline deadline = wait_deadline::max()) {
    for (int i = 0; i < spins_; ++i) {
      if (ready()) return {};
      if (aborted()) return fail_aborted();
      spin_pause();
      // See wait_word::wait_while: the awaited rank may need this very core.
      if (i % pauses_per_yield == pauses_per_yield - 1) sched_yield();
    }
    const announced here(segment_.rank(rank_).awaits, peers);
    for (;;) {
      const std::uint32_t seen = control_.word.load(std::memory_order_seq_cst);
      if (ready()) return {};
      if ((seen & epoch_over) != 0) return fail_aborted();
      const int gone = first_gone(peers);
      if (gone >= 0) return ready() ? base::result<void>() : fail_gone(gone);
      if (auto sound = doubt(); !sound) return sound;
      TROUPE_TRY_VOID(sleep(seen, deadline));
    }
  }

  // Takes the seat; waits until all ranks have. Errors: already_exists, unavailable, aborted.
  [[nodiscard]] base::result<void> join(std::chrono::milliseconds patience);
  // Gives the seat up: the others' waits for this rank end with unavailable.
  void leave() noexcept;

 private:
  static constexpr int pauses_per_yield = 32;

  // Tells the peers for whom this rank waits, for as long as it may sleep.
  class announced {
   public:
    announced(std::atomic<std::uint64_t>& awaits, std::uint64_t peers) noexcept : awaits_(awaits) {
      awaits_.store(peers, std::memory_order_seq_cst);
    }
    announced(const announced&) = delete;
    announced& operator=(const announced&) = delete;
    ~announced() { awaits_.store(0, std::memory_order_relaxed); }

   private:
    std::atomic<std::uint64_t>& awaits_;
  };

  void wake(int peer) noexcept;
  [[nodiscard]] base::result<void> sleep(std::uint32_t seen, wait_deadline deadline) noexcept;
  [[nodiscard]] bool all_attached() const noexcept;
  [[nodiscard]] int first_gone(std::uint64_t peers) const noexcept;
  [[nodiscard]] base::result<void> fail_gone(int rank) const;
  void tell_cores() noexcept;
  [[nodiscard]] int spins() const noexcept;

  const shared_segment& segment_;
  shared_control& control_;
  const int rank_;
  int spins_;
  bool joined_ = false;
};

}  // namespace troupe::transport
