#include "transport/shared_memory_sum.hpp"

#include "base/check.hpp"
#include "transport/tree_sum.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace troupe::transport {
namespace {

// Two ranks add 8 KiB in 1.8 us by one exchange of messages and in 2.3 by boards; 64 KiB in 11 and
// 9, 16 MiB in 3.2 ms and 2.4. Eight on two cores: 8 bytes in 14 us and 5, 8 KiB in 22 and 17,
// 16 MiB in 22 ms and 12; four gain a quarter from 32 KiB on, and lose as much at 8 KiB.
constexpr std::size_t pair_board_bytes_min = std::size_t{64} << 10;
// From this size on each rank of four or more adds a slice and not all: with p ranks it then reads
// 2 (p - 1) / p of the values, not p - 1 times all, for one more meeting.
constexpr std::size_t slices_bytes_min = std::size_t{32} << 10;
constexpr std::size_t board_floats = board_bytes / sizeof(float);
constexpr std::size_t line_floats = 16;

// Where the slice of `place` begins, in whole cache lines.
std::size_t cut(std::size_t count, int place, int size) {
  const std::size_t lines = (count + line_floats - 1) / line_floats;
  const auto part = static_cast<std::size_t>(place);
  return std::min(count, lines * part / static_cast<std::size_t>(size) * line_floats);
}

void copy(std::span<const float> from, float* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size_bytes());
}

}  // namespace

shared_collective::shared_collective(std::unique_ptr<collective> messages,
                                     std::shared_ptr<shared_peers> peers, shared_group_seat seat)
    : messages_(std::move(messages)),
      peers_(std::move(peers)),
      seat_(std::move(seat)),
      place_{.rank = messages_->rank(), .size = messages_->size()},
      posted_(peers_->posted(seat_.group)) {
  TROUPE_CHECK(static_cast<std::size_t>(place_.size) == seat_.members.size());
}

float* shared_collective::board(int place, std::uint64_t step) const noexcept {
  const int member = seat_.members[static_cast<std::size_t>(place)];
  std::byte* start = peers_->segment().board(member, seat_.group, static_cast<int>(step & 1));
  return reinterpret_cast<float*>(start + board_header_bytes);
}

float* shared_collective::my_next_board() const noexcept { return board(place_.rank, posted_ + 1); }

base::result<void> shared_collective::all_reduce_sum(base::epoch_id epoch,
                                                     std::span<float> values) {
  TROUPE_TRY_VOID(check_epoch(seat_.epoch, epoch));
  if (peers_->bell().aborted()) return fail_aborted();
  TROUPE_TRY_VOID(check_sum_group(place_));  // the same refusal on every rank: nobody waits
  if (place_.size == 1) return {};
  if (place_.size == 2 && values.size_bytes() < pair_board_bytes_min) {
    return messages_->all_reduce_sum(epoch, values);
  }
  const bool slices = place_.size > 2 && values.size_bytes() >= slices_bytes_min;
  auto outcome = slices ? sum_in_slices(values) : sum_whole(values);
  if (!outcome) messages_->abort();
  return outcome;
}

// An empty sum is one step too: all ranks meet, and lengths that differ are found.
base::result<void> shared_collective::sum_whole(std::span<float> values) {
  const auto others = static_cast<std::size_t>(place_.size - 1);
  for (std::size_t begin = 0; begin == 0 || begin < values.size(); begin += board_floats) {
    const auto part = values.subspan(begin, std::min(board_floats, values.size() - begin));
    copy(part, my_next_board());
    TROUPE_TRY_VOID(meet({.bytes = values.size_bytes(), .begin = begin, .phase = 0}));
    add_boards(part, 0);
    auto& moved = peers_->moved();
    moved.sent.fetch_add(part.size_bytes(), std::memory_order_relaxed);
    moved.received.fetch_add(part.size_bytes() * others, std::memory_order_relaxed);
  }
  return {};
}

base::result<void> shared_collective::sum_in_slices(std::span<float> values) {
  for (std::size_t begin = 0; begin < values.size(); begin += board_floats) {
    const auto part = values.subspan(begin, std::min(board_floats, values.size() - begin));
    const std::size_t first = cut(part.size(), place_.rank, place_.size);
    const std::size_t last = cut(part.size(), place_.rank + 1, place_.size);
    float* laid_out = my_next_board();
    copy(part.first(first), laid_out);
    copy(part.subspan(last), laid_out + last);
    TROUPE_TRY_VOID(meet({.bytes = values.size_bytes(), .begin = begin, .phase = 1}));
    const auto slice = part.subspan(first, last - first);
    add_boards(slice, first);
    copy(slice, my_next_board() + first);
    TROUPE_TRY_VOID(meet({.bytes = values.size_bytes(), .begin = begin, .phase = 2}));
    for (int other = 0; other < place_.size; ++other) {
      if (other == place_.rank) continue;
      const std::size_t from = cut(part.size(), other, place_.size);
      const std::size_t to = cut(part.size(), other + 1, place_.size);
      copy({board(other, posted_) + from, to - from}, part.data() + from);
    }
    auto& moved = peers_->moved();
    moved.sent.fetch_add(part.size_bytes(), std::memory_order_relaxed);
    const std::size_t read = slice.size() * static_cast<std::size_t>(place_.size - 2) + part.size();
    moved.received.fetch_add(read * sizeof(float), std::memory_order_relaxed);
  }
  return {};
}

// Asks for the others' lines, which lie in other cores' caches: additions alone wait for each, and
// took 2.9 us for 8 KiB of two ranks, with this 2.3.
void shared_collective::fetch(std::size_t begin, std::size_t count) const noexcept {
  for (int place = 0; place < place_.size; ++place) {
    if (place == place_.rank) continue;
    const float* from = board(place, posted_) + begin;
    for (std::size_t i = 0; i < count; i += line_floats) __builtin_prefetch(from + i, 0, 3);
  }
}

// In blocks that stay in the first-level cache.
void shared_collective::add_boards(std::span<float> values, std::size_t begin) const {
  constexpr std::size_t block = 2048;  // floats
  std::array<float, block> sum;
  std::array<const float*, static_cast<std::size_t>(group_size_max)> sources{};
  const auto ranks = static_cast<std::size_t>(place_.size);
  for (std::size_t at = 0; at < values.size(); at += block) {
    const auto here = values.subspan(at, std::min(block, values.size() - at));
    fetch(begin + at, here.size());
    if (ranks == 2) {  // one node of the tree, whose operands may change places
      add_to(here, {board(1 - place_.rank, posted_) + begin + at, here.size()});
      continue;
    }
    for (std::size_t r = 0; r < ranks; ++r) {
      const int place = static_cast<int>(r);
      sources[r] = place == place_.rank ? here.data() : board(place, posted_) + begin + at;
    }
    tree_sum(std::span(sources).first(ranks), std::span(sum).first(here.size()));
    copy(std::span(sum).first(here.size()), here.data());
  }
}

base::result<void> shared_collective::meet(const board_header& header) {
  shared_bell& bell = peers_->bell();
  if (bell.aborted()) return fail_aborted();
  const shared_segment& segment = peers_->segment();
  const int self = peers_->rank();
  const std::uint64_t step = posted_ + 1;
  std::memcpy(segment.board(self, seat_.group, static_cast<int>(step & 1)), &header, sizeof header);
  posted_ = step;
  segment.count(self, seat_.group).posted.store(step, std::memory_order_seq_cst);
  for (const int member : seat_.members) {
    if (member != self) bell.ring(member);
  }
  for (int place = 0; place < place_.size; ++place) {
    if (place == place_.rank) continue;
    TROUPE_TRY_VOID(wait_for(seat_.members[static_cast<std::size_t>(place)], step));
    TROUPE_TRY_VOID(check_header(place, header));
  }
  return {};
}

base::result<void> shared_collective::wait_for(int member, std::uint64_t step) {
  const auto& count = peers_->segment().count(member, seat_.group).posted;
  std::uint64_t there = 0;
  TROUPE_TRY_VOID(peers_->bell().wait(
      std::uint64_t{1} << member,
      [&] {
        there = count.load(std::memory_order_seq_cst);
        return there >= step;
      },
      [&] { return peers_->check_no_message(member, seat_.group, step); }));
  if (there <= step + 1) return {};
  return base::fail(base::error_code::data_loss, "transport",
                    fmt::format("shared memory of rank {}: impossible count of boards; its memory "
                                "or ours is corrupt, end the epoch",
                                member));
}

base::result<void> shared_collective::check_header(int place, const board_header& mine) const {
  const int member = seat_.members[static_cast<std::size_t>(place)];
  board_header theirs;
  std::memcpy(&theirs, peers_->segment().board(member, seat_.group, static_cast<int>(posted_ & 1)),
              sizeof theirs);
  if (theirs == mine) return {};
  return base::fail(base::error_code::invalid_argument, "transport",
                    fmt::format("all_reduce_sum: rank {} passes {} bytes and is at byte {}, rank "
                                "{} passes {} and is at {}",
                                place, theirs.bytes, theirs.begin * sizeof(float), place_.rank,
                                mine.bytes, mine.begin * sizeof(float)));
}

}  // namespace troupe::transport
