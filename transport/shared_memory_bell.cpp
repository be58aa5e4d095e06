#include "transport/shared_memory_bell.hpp"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <climits>
#include <ctime>
#include <string>

namespace troupe::transport {
namespace {

// Ranks beyond 32 share a bit: woken in vain, they sleep again.
std::uint32_t bit_of(int rank) noexcept { return std::uint32_t{1} << (rank % 32); }

long wake_bits(std::atomic<std::uint32_t>& word, std::uint32_t bits) noexcept {
  return syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, INT_MAX, nullptr, nullptr, bits);
}

}  // namespace

// Not FUTEX_*_PRIVATE anywhere: the processes know the word by different addresses.
void abort_shared_epoch(shared_control& control) noexcept {
  auto& word = control.word;
  const auto mark = FUTEX_OP(FUTEX_OP_OR, epoch_over, FUTEX_OP_CMP_EQ, 0);
  const long woken = syscall(SYS_futex, &word, FUTEX_WAKE_OP, INT_MAX, nullptr, &word, mark);
  // Where a sandbox refuses that operation. After it a store of what is there already.
  word.fetch_or(epoch_over, std::memory_order_seq_cst);
  if (woken < 0) wake_bits(word, FUTEX_BITSET_MATCH_ANY);
}

shared_bell::shared_bell(const shared_segment& segment, int rank) noexcept
    : segment_(segment), control_(segment.control()), rank_(rank), spins_(0) {}

// The count has 31 bits: it cannot come round between a waiter's look and its futex call.
void shared_bell::wake(int peer) noexcept {
  control_.word.fetch_add(wake_step, std::memory_order_seq_cst);
  wake_bits(control_.word, bit_of(peer));
}

base::result<void> shared_bell::sleep(std::uint32_t seen, wait_deadline deadline) noexcept {
  timespec until{};
  timespec* limit = nullptr;
  if (deadline != wait_deadline::max()) {  // steady_clock is CLOCK_MONOTONIC, as the futex's
    const auto since = deadline.time_since_epoch();
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since);
    until = {
        .tv_sec = whole.count(),
        .tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(since - whole).count()};
    limit = &until;
  }
  const long slept =
      syscall(SYS_futex, &control_.word, FUTEX_WAIT_BITSET, seen, limit, nullptr, bit_of(rank_));
  if (slept == 0 || errno != ETIMEDOUT) return {};
  return base::fail(base::error_code::deadline_exceeded, "transport", "the wait took too long",
                    true);
}

int shared_bell::first_gone(std::uint64_t peers) const noexcept {
  for (int r = 0; r < segment_.ranks(); ++r) {
    if ((peers >> r & 1) == 0) continue;
    if (segment_.rank(r).state.load(std::memory_order_seq_cst) == shared_seat_state::left) return r;
  }
  return -1;
}

base::result<void> shared_bell::fail_gone(int rank) const {
  return base::fail(base::error_code::unavailable, "transport",
                    fmt::format("rank {} has left the gang's shared memory; a new epoch needs a "
                                "new segment",
                                rank),
                    true);
}

bool shared_bell::all_attached() const noexcept {
  for (int r = 0; r < segment_.ranks(); ++r) {
    if (segment_.rank(r).state.load(std::memory_order_seq_cst) == shared_seat_state::free) {
      return false;
    }
  }
  return true;
}

base::result<void> shared_bell::join(std::chrono::milliseconds patience) {
  shared_rank& mine = segment_.rank(rank_);
  tell_cores();
  auto expected = shared_seat_state::free;
  if (!mine.state.compare_exchange_strong(expected, shared_seat_state::attached)) {
    return base::fail(base::error_code::already_exists, "transport",
                      fmt::format("rank {}'s seat in the shared memory segment is taken; a "
                                  "restarted rank joins the next epoch",
                                  rank_));
  }
  joined_ = true;
  std::uint64_t others = 0;
  for (int r = 0; r < segment_.ranks(); ++r) {
    if (r == rank_) continue;
    others |= std::uint64_t{1} << r;
    ring(r);
  }
  const auto deadline = std::chrono::steady_clock::now() + patience;
  auto all = wait(
      others, [&] { return all_attached(); }, [] { return base::result<void>(); }, deadline);
  if (all) {
    spins_ = spins();
    return {};
  }
  if (all.error().code != base::error_code::deadline_exceeded) return all;
  std::string missing;
  for (int r = 0; r < segment_.ranks(); ++r) {
    if (segment_.rank(r).state.load() != shared_seat_state::free) continue;
    missing += fmt::format("{}{}", missing.empty() ? "" : ", ", r);
  }
  return base::fail(base::error_code::unavailable, "transport",
                    fmt::format("rank {} waited {} ms for rank {} to attach to the shared memory "
                                "segment",
                                rank_, patience.count(), missing),
                    true);
}

void shared_bell::leave() noexcept {
  if (!joined_) return;
  joined_ = false;
  segment_.rank(rank_).state.store(shared_seat_state::left, std::memory_order_seq_cst);
  for (int r = 0; r < segment_.ranks(); ++r) {
    if (r != rank_) ring(r);
  }
}

void shared_bell::tell_cores() noexcept {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  static_assert(sizeof cores * CHAR_BIT == shared_cores_max);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return;  // then it counts as having none
  for (std::size_t core = 0; core < shared_cores_max; ++core) {
    if (!CPU_ISSET(core, &cores)) continue;
    segment_.rank(rank_).cores[core / 64].fetch_or(std::uint64_t{1} << (core % 64));
  }
}

// The cores that any of the ranks may run on: ranks pinned to one core each have a core each.
int shared_bell::spins() const noexcept {
  int cores = 0;
  for (std::size_t part = 0; part < shared_cores_max / 64; ++part) {
    std::uint64_t any = 0;
    for (int r = 0; r < segment_.ranks(); ++r) any |= segment_.rank(r).cores[part].load();
    cores += std::popcount(any);
  }
  return spins_for(segment_.ranks(), cores);
}

}  // namespace troupe::transport
