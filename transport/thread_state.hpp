// What the handles of one thread group share: slots, the barrier, the channels, who reads whom.
// Internal to transport/; see threads.hpp for the protocol.
#pragma once

#include "base/error.hpp"
#include "base/ids.hpp"
#include "transport/arguments.hpp"
#include "transport/wait_word.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace troupe::transport {

// Up to here a copy through the shared slot beats a second meeting: 16 KiB are copied in about
// 1 us, a meeting costs 0.3 us with a core for each rank and tens when there are fewer.
inline constexpr std::size_t eager_bytes_max = std::size_t{16} << 10;
// How much is read between two looks at the abort mark: 256 KiB take about 20 us.
inline constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
// A channel holds so many unreceived messages; those up to buffered_bytes_max do not block the
// sender before that (a decode step's activations), longer ones are read from the sender's memory.
inline constexpr std::size_t channel_messages_max = 4;
inline constexpr std::size_t buffered_bytes_max = std::size_t{64} << 10;

// What one rank announces about one operation. Two a rank, used in turn: a rank that is one
// operation ahead writes the other one; it cannot be two ahead, since all meet in each.
struct call_slot {
  operation kind = operation::none;
  bool fits = true;       // the rank's own arguments are consistent
  bool borrowed = false;  // `source` is the rank's memory, not `eager`
  int root = 0;           // broadcast
  std::size_t bytes = 0;  // what must be the same on all ranks
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  std::vector<std::size_t> send_counts;  // copied: they may outlive the caller's
  std::vector<std::size_t> receive_counts;
  alignas(64) std::array<std::byte, eager_bytes_max> eager;
};

struct channel_entry {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  bool refused = false;             // the receiver expected another size
  std::vector<std::byte> buffered;  // the copy, when the message is short
};

// One direction of one pair. The sender alone advances `posted`, the receiver alone `taken`.
struct channel {
  wait_word posted;
  wait_word taken;
  std::array<channel_entry, channel_messages_max> entries;
};

class thread_state {
 public:
  thread_state(int size, base::epoch_id epoch);

  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] base::epoch_id epoch() const noexcept { return epoch_; }

  [[nodiscard]] call_slot& slot(int rank, std::uint64_t call) noexcept {
    return slots_[2 * static_cast<std::size_t>(rank) + (call & 1)];
  }
  // Whether the announcements of this operation fit together. The same answer on every rank.
  [[nodiscard]] base::result<void> check_agreement(std::uint64_t call);
  [[nodiscard]] bool any_borrowed(std::uint64_t call) noexcept;

  // Errors: aborted, unavailable; only once nobody reads this group's memory any more.
  [[nodiscard]] base::result<void> meet();

  [[nodiscard]] base::result<void> send(int from, int to, std::span<const std::byte> bytes);
  [[nodiscard]] base::result<void> receive(int to, int from, std::span<std::byte> bytes);

  // Brackets the reading of other ranks' memory, so that an aborted owner waits for its end.
  // Errors: aborted (and then reading has not begun).
  [[nodiscard]] base::result<void> begin_reading(int rank);
  void end_reading(int rank) noexcept;

  [[nodiscard]] bool aborted() const noexcept { return aborted_.load(std::memory_order_seq_cst); }
  void abort() noexcept;
  // The rank's handle is destroyed: nobody needs to wait for it.
  void leave(int rank) noexcept;

 private:
  struct alignas(64) reading_flag {
    std::atomic<bool> now{false};
  };

  channel& channel_of(int from, int to) noexcept {
    return channels_[static_cast<std::size_t>(from * size_ + to)];
  }
  void wait_until_unread() const noexcept;
  tl::unexpected<base::error> give_up(std::uint32_t word) const;
  base::result<void> wait_for_room(channel& link);
  base::result<void> wait_until_taken(channel& link, std::uint32_t posted);

  const int size_;
  const base::epoch_id epoch_;
  const int spins_;
  std::vector<call_slot> slots_;
  std::vector<channel> channels_;
  std::vector<reading_flag> reading_;
  alignas(64) std::atomic<int> arrived_{0};
  wait_word gate_;
  std::atomic<bool> aborted_{false};
};

// The groups that are aborted together. Handles keep their states alive, not this.
struct abort_scope {
  std::vector<std::weak_ptr<thread_state>> groups;
  void abort() const noexcept {
    for (const auto& group : groups) {
      if (const auto alive = group.lock()) alive->abort();
    }
  }
};

}  // namespace troupe::transport
