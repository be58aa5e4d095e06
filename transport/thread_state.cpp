#include "transport/thread_state.hpp"

#include <fmt/format.h>

#include <sched.h>

#include <algorithm>

namespace troupe::transport {
namespace {

tl::unexpected<base::error> disagree(operation kind, std::string detail) {
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("{}: {}", to_string(kind), detail));
}

}  // namespace

thread_state::thread_state(int size, base::epoch_id epoch)
    : size_(size),
      epoch_(epoch),
      spins_(spins_for(size)),
      slots_(2 * static_cast<std::size_t>(size)),
      channels_(static_cast<std::size_t>(size * size)),
      reading_(static_cast<std::size_t>(size)) {}

base::result<void> thread_state::check_agreement(std::uint64_t call) {
  const call_slot& first = slot(0, call);
  for (int rank = 0; rank < size_; ++rank) {
    const call_slot& other = slot(rank, call);
    if (!other.fits) {
      return disagree(other.kind, fmt::format("rank {}'s sizes do not fit together", rank));
    }
    if (other.kind != first.kind) {
      return disagree(first.kind, fmt::format("ranks out of step: rank {} calls {}, rank 0 this",
                                              rank, to_string(other.kind)));
    }
    if (other.bytes != first.bytes || other.root != first.root) {
      return disagree(first.kind,
                      fmt::format("rank {} passes {} bytes (root {}), rank 0 {} (root {})", rank,
                                  other.bytes, other.root, first.bytes, first.root));
    }
    if (first.kind == operation::all_gather_v && other.send_counts != first.send_counts) {
      return disagree(first.kind, fmt::format("ranks {} and 0 pass different counts", rank));
    }
  }
  if (first.kind != operation::all_to_all_v) return {};
  for (int from = 0; from < size_; ++from) {
    for (int to = 0; to < size_; ++to) {
      const std::size_t sent = slot(from, call).send_counts[static_cast<std::size_t>(to)];
      const std::size_t wanted = slot(to, call).receive_counts[static_cast<std::size_t>(from)];
      if (sent == wanted) continue;
      return disagree(first.kind, fmt::format("rank {} sends {} bytes to rank {}, which expects {}",
                                              from, sent, to, wanted));
    }
  }
  return {};
}

bool thread_state::any_borrowed(std::uint64_t call) noexcept {
  for (int rank = 0; rank < size_; ++rank) {
    if (slot(rank, call).borrowed) return true;
  }
  return false;
}

// A central barrier: the last to arrive opens the gate. What happened wins over what is marked: a
// rank that passed the last barrier of its life may destroy its handle before the others wake.
base::result<void> thread_state::meet() {
  const std::uint32_t start = gate_.load();
  if ((start & (wait_word::aborted_mark | wait_word::gone_mark)) != 0) return give_up(start);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    gate_.advance();
    return {};
  }
  const std::uint32_t now = gate_.wait_while(start, spins_);
  if (wait_word::count(now) != wait_word::count(start)) return {};
  return give_up(now);
}

tl::unexpected<base::error> thread_state::give_up(std::uint32_t word) const {
  wait_until_unread();
  if ((word & wait_word::aborted_mark) != 0) return fail_aborted();
  return base::fail(base::error_code::unavailable, "transport",
                    "a rank of this group is gone; a new epoch needs a new group", true);
}

// After abort() no reading begins, and one under way ends within a chunk: this wait is short once
// the reader is scheduled, and without it the caller would free what another thread reads.
void thread_state::wait_until_unread() const noexcept {
  for (const reading_flag& reader : reading_) {
    while (reader.now.load(std::memory_order_seq_cst)) sched_yield();
  }
}

base::result<void> thread_state::begin_reading(int rank) {
  std::atomic<bool>& flag = reading_[static_cast<std::size_t>(rank)].now;
  // Sequentially consistent against abort(): either this sees the abort, or who leaves because of
  // it sees this flag.
  flag.store(true, std::memory_order_seq_cst);
  if (!aborted()) return {};
  flag.store(false, std::memory_order_seq_cst);
  wait_until_unread();
  return fail_aborted();
}

void thread_state::end_reading(int rank) noexcept {
  reading_[static_cast<std::size_t>(rank)].now.store(false, std::memory_order_seq_cst);
}

void thread_state::abort() noexcept {
  aborted_.store(true, std::memory_order_seq_cst);
  gate_.mark(wait_word::aborted_mark);
  for (channel& link : channels_) {
    link.posted.mark(wait_word::aborted_mark);
    link.taken.mark(wait_word::aborted_mark);
  }
}

void thread_state::leave(int rank) noexcept {
  gate_.mark(wait_word::gone_mark);
  for (int other = 0; other < size_; ++other) {
    channel_of(rank, other).posted.mark(wait_word::gone_mark);
    channel_of(other, rank).taken.mark(wait_word::gone_mark);
  }
}

// Counts are compared by difference, so that they may wrap.
base::result<void> thread_state::wait_for_room(channel& link) {
  const std::uint32_t posted = wait_word::count(link.posted.load());
  std::uint32_t taken = link.taken.load();
  for (;;) {
    if ((taken & (wait_word::aborted_mark | wait_word::gone_mark)) != 0) return give_up(taken);
    const std::uint32_t waiting =
        wait_word::count((posted * wait_word::step) - (taken & ~(wait_word::step - 1)));
    if (waiting < channel_messages_max) return {};
    taken = link.taken.wait_while(taken, spins_);
  }
}

base::result<void> thread_state::wait_until_taken(channel& link, std::uint32_t posted) {
  std::uint32_t taken = link.taken.load();
  for (;;) {
    if (wait_word::count(taken) == posted) return {};
    if ((taken & (wait_word::aborted_mark | wait_word::gone_mark)) != 0) return give_up(taken);
    taken = link.taken.wait_while(taken, spins_);
  }
}

base::result<void> thread_state::send(int from, int to, std::span<const std::byte> bytes) {
  channel& link = channel_of(from, to);
  TROUPE_TRY_VOID(wait_for_room(link));
  const std::uint32_t number = wait_word::count(link.posted.load());
  channel_entry& entry = link.entries[number % channel_messages_max];
  const bool buffered = bytes.size() <= buffered_bytes_max;
  if (buffered) entry.buffered.assign(bytes.begin(), bytes.end());
  entry.data = buffered ? entry.buffered.data() : bytes.data();
  entry.bytes = bytes.size();
  entry.refused = false;
  link.posted.advance();
  if (buffered) return {};
  TROUPE_TRY_VOID(wait_until_taken(link, wait_word::count(link.posted.load())));
  if (!entry.refused) return {};
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("send: rank {} expected another size than the {} bytes of rank {}",
                                to, bytes.size(), from));
}

base::result<void> thread_state::receive(int to, int from, std::span<std::byte> bytes) {
  channel& link = channel_of(from, to);
  const std::uint32_t number = wait_word::count(link.taken.load());
  for (std::uint32_t posted = link.posted.load(); wait_word::count(posted) == number;
       posted = link.posted.wait_while(posted, spins_)) {
    if ((posted & (wait_word::aborted_mark | wait_word::gone_mark)) != 0) return give_up(posted);
  }
  channel_entry& entry = link.entries[number % channel_messages_max];
  const std::size_t sent = entry.bytes;
  entry.refused = sent != bytes.size();
  if (!entry.refused) {
    TROUPE_TRY_VOID(begin_reading(to));
    for (std::size_t done = 0; done < sent && !aborted(); done += chunk_bytes) {
      const std::size_t count = std::min(chunk_bytes, sent - done);
      copy_bytes({entry.data + done, count}, bytes.subspan(done, count));
    }
    end_reading(to);
    if (aborted()) {
      wait_until_unread();
      return fail_aborted();
    }
  }
  const bool refused = entry.refused;  // the entry is the sender's again once taken
  link.taken.advance();
  if (!refused) return {};
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("receive: rank {} expects {} bytes, rank {} sent {}", to,
                                bytes.size(), from, sent));
}

}  // namespace troupe::transport
