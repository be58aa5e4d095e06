// The layout of a shared segment, and one mapping of it. Internal to the shared-memory data plane.
//
//   page 0     the header and the epoch word (what the supervisor maps)
//   then       a line for each rank (what it waits for), a board counter for each rank and group,
//              two ring indices for each ordered pair of ranks
//   then       the boards: two for each rank and group
//   then       the rings: one for each ordered pair
//
// All of it follows from the number of ranks, which both sides know: no offset is ever read from
// the segment. Fields that two ranks write never share 128 bytes (cores fetch lines in pairs).
#pragma once

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/ids.hpp"
#include "transport/arguments.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace troupe::transport {

inline constexpr std::size_t shared_page_bytes = 4096;
inline constexpr std::size_t shared_pair_bytes = 128;  // two cache lines
inline constexpr int shared_groups = 3;                // world, tp, pp
inline constexpr std::size_t shared_cores_max = 1024;  // as in cpu_set_t

// The largest part of a sum that a rank lays out at once. Halving it costs 40 % of a long sum's
// speed (more meetings); more gains nothing and leaves the cores' own caches.
inline constexpr std::size_t board_bytes = std::size_t{128} << 10;
inline constexpr std::size_t board_header_bytes = 64;

// Of 64 KiB a message of 256 takes 28 us, of 256 KiB 18, and more gains nothing: they stay in the
// sender's own cache and hold 31 messages of 8 KiB, a decode step's. Beyond 16 ranks less, so that
// the pairs of 64 ranks come to 256 MiB at most.
[[nodiscard]] constexpr std::size_t ring_bytes(int ranks) noexcept {
  return std::size_t{ranks <= 16 ? 256U : 64U} << 10;
}

// The parts of shared_control::word.
inline constexpr std::uint32_t epoch_over = 1;
inline constexpr std::uint32_t wake_step = 2;

struct alignas(shared_page_bytes) shared_control {
  // Written by who makes the segment, before any rank has it.
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t ranks = 0;
  base::epoch_id epoch;
  // epoch_over, and above it a count that moves when sleepers are woken: shared_memory_bell.hpp.
  alignas(shared_pair_bytes) std::atomic<std::uint32_t> word;
};

enum class shared_seat_state : std::uint32_t { free, attached, left };

// Written by its rank alone.
struct shared_rank {
  alignas(shared_pair_bytes) std::atomic<std::uint64_t> awaits;  // bit p: asleep until p acts
  alignas(shared_pair_bytes) std::atomic<shared_seat_state> state;
  std::array<std::atomic<std::uint64_t>, shared_cores_max / 64> cores;  // it may run on
};

// How many boards the rank has laid out in this group since the epoch began. Written by it alone.
struct shared_board_count {
  alignas(shared_pair_bytes) std::atomic<std::uint64_t> posted;
};

// Bytes since the epoch began; never wraps. `head` is written by the sender alone, `tail` by the
// receiver alone.
struct shared_ring_indices {
  alignas(shared_pair_bytes) std::atomic<std::uint64_t> head;
  alignas(shared_pair_bytes) std::atomic<std::uint64_t> tail;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

struct shared_layout {
  explicit shared_layout(int ranks) noexcept;
  std::size_t ranks_at = 0;
  std::size_t counts_at = 0;
  std::size_t indices_at = 0;
  std::size_t boards_at = 0;
  std::size_t rings_at = 0;
  std::size_t bytes = 0;
};

// The size of what the descriptor names.
// Errors: invalid_argument, unless that is sealed memory with room for a header.
[[nodiscard]] base::result<std::size_t> shared_descriptor_bytes(int segment);

// Marks the epoch as over and wakes every sleeper. See shared_memory_bell.cpp.
void abort_shared_epoch(shared_control& control) noexcept;

// A mapping of the whole segment. Ranks that are threads may share one.
class shared_segment {
 public:
  // Errors: invalid_argument, aborted (another epoch), resource_exhausted.
  [[nodiscard]] static base::result<std::shared_ptr<shared_segment>> map(base::fd segment,
                                                                         base::epoch_id epoch,
                                                                         int ranks);
  shared_segment(const shared_segment&) = delete;
  shared_segment& operator=(const shared_segment&) = delete;
  ~shared_segment();

  [[nodiscard]] int ranks() const noexcept { return ranks_; }
  [[nodiscard]] shared_control& control() const noexcept { return *at<shared_control>(0); }
  [[nodiscard]] shared_rank& rank(int r) const noexcept {
    return at<shared_rank>(layout_.ranks_at)[r];
  }
  [[nodiscard]] shared_board_count& count(int r, int group) const noexcept {
    return at<shared_board_count>(layout_.counts_at)[r * shared_groups + group];
  }
  [[nodiscard]] shared_ring_indices& indices(int from, int to) const noexcept {
    return at<shared_ring_indices>(layout_.indices_at)[from * ranks_ + to];
  }
  // The header of board `turn` (0 or 1), its bytes behind it.
  [[nodiscard]] std::byte* board(int r, int group, int turn) const noexcept {
    const auto number = static_cast<std::size_t>((r * shared_groups + group) * 2 + turn);
    return bytes_ + layout_.boards_at + number * (board_header_bytes + board_bytes);
  }
  [[nodiscard]] std::byte* ring(int from, int to) const noexcept {
    const auto number = static_cast<std::size_t>(from * ranks_ + to);
    return bytes_ + layout_.rings_at + number * ring_bytes(ranks_);
  }

 private:
  shared_segment(std::byte* bytes, int ranks) noexcept
      : bytes_(bytes), ranks_(ranks), layout_(ranks) {}
  template <class T>
  [[nodiscard]] T* at(std::size_t offset) const noexcept {
    return reinterpret_cast<T*>(bytes_ + offset);
  }

  std::byte* const bytes_;
  const int ranks_;
  const shared_layout layout_;
};

}  // namespace troupe::transport
