#include "transport/shared_memory_ring.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace troupe::transport {
namespace {

// How much is copied between two publications, and between two looks at the epoch word: 2 us. In
// pieces of 4 KiB a message of 256 KiB takes 26 us, not 18; in larger ones the reader starts later.
constexpr std::size_t piece_bytes = std::size_t{16} << 10;
constexpr std::uint8_t header_mark = 0xa5;
// More than any host has: a stale message that claims it cannot be skipped.
constexpr std::uint64_t message_bytes_max = std::uint64_t{1} << 48;

constexpr std::uint64_t whole_lines(std::uint64_t bytes) {
  return (bytes + ring_line - 1) / ring_line * ring_line;
}

void copy_some(void* to, const void* from, std::size_t bytes) noexcept {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

// `index` of the ring is where the bytes begin; they may run over its end to its start.
void write_at(const ring_place& place, std::uint64_t index, std::span<const std::byte> bytes) {
  const auto begin = static_cast<std::size_t>(index & (place.capacity - 1));
  const std::size_t first = std::min(bytes.size(), place.capacity - begin);
  copy_some(place.bytes + begin, bytes.data(), first);
  copy_some(place.bytes, bytes.data() + first, bytes.size() - first);
}

void read_at(const ring_place& place, std::uint64_t index, std::span<std::byte> bytes) {
  const auto begin = static_cast<std::size_t>(index & (place.capacity - 1));
  const std::size_t first = std::min(bytes.size(), place.capacity - begin);
  copy_some(bytes.data(), place.bytes + begin, first);
  copy_some(bytes.data() + first, place.bytes, bytes.size() - first);
}

tl::unexpected<base::error> fail_corrupt(int peer, std::string_view what) {
  return base::fail(base::error_code::data_loss, "transport",
                    fmt::format("shared memory from rank {}: impossible {}; its memory or ours is "
                                "corrupt, end the epoch",
                                peer, what));
}

}  // namespace

void ring_sender::start(base::epoch_id epoch, message_tag tag,
                        std::span<const std::byte> bytes) noexcept {
  header_ = {.epoch = epoch,
             .size = bytes.size(),
             .number = tag.number,
             .kind = static_cast<std::uint8_t>(tag.kind),
             .round = tag.round,
             .group = tag.group,
             .mark = header_mark,
             .payload = {}};
  header_due_ = true;
  left_ = bytes;
  if (bytes.size() > inline_bytes_max) return;
  copy_some(header_.payload.data(), bytes.data(), bytes.size());
  left_ = {};
}

// The reader's index may only move forward, and never past what was written.
base::result<std::size_t> ring_sender::room() {
  const std::uint64_t tail = place_.indices.tail.load(std::memory_order_seq_cst);
  if (tail - tail_seen_ > head_ - tail_seen_ || tail % ring_line != 0) {
    return fail_corrupt(place_.peer, "reader's index");
  }
  tail_seen_ = tail;
  return place_.capacity - static_cast<std::size_t>(head_ - tail);
}

base::result<bool> ring_sender::advance(shared_bell& bell) {
  const std::size_t wanted =
      std::min(piece_bytes,
               (header_due_ ? ring_line : 0) + static_cast<std::size_t>(whole_lines(left_.size())));
  // What was free at the last look is still free.
  std::size_t room_here = place_.capacity - static_cast<std::size_t>(head_ - tail_seen_);
  if (room_here < wanted) {
    TROUPE_TRY(found, room());
    room_here = found;
  }
  std::size_t room_left = std::min(room_here, wanted);
  if (room_left == 0) return false;
  if (header_due_) {
    write_at(place_, head_, std::as_bytes(std::span(&header_, 1)));
    header_due_ = false;
    head_ += ring_line;
    room_left -= ring_line;
  }
  const std::size_t now = std::min(left_.size(), room_left);
  write_at(place_, head_, left_.first(now));
  left_ = left_.subspan(now);
  head_ += whole_lines(now);
  bell.publish(place_.indices.head, head_, place_.peer);
  return true;
}

void ring_receiver::start(base::epoch_id epoch, message_tag tag,
                          std::span<std::byte> bytes) noexcept {
  epoch_ = epoch;
  tag_ = tag;
  left_ = bytes;
  header_due_ = true;
}

// The writer's index may only move forward, and never more than a ring past what was read.
base::result<std::size_t> ring_receiver::available() {
  const std::uint64_t head = place_.indices.head.load(std::memory_order_seq_cst);
  if (head - head_seen_ > place_.capacity - (head_seen_ - tail_) || head % ring_line != 0) {
    return fail_corrupt(place_.peer, "writer's index");
  }
  head_seen_ = head;
  return static_cast<std::size_t>(head - tail_);
}

base::result<void> ring_receiver::check_header(const shared_message_header& found) const {
  const message_tag got{.kind = static_cast<operation>(found.kind),
                        .round = found.round,
                        .group = found.group,
                        .number = found.number};
  if (got == tag_ && found.size == left_.size()) return {};
  return base::fail(
      base::error_code::invalid_argument, "transport",
      fmt::format("ranks out of step: rank {} sent {} bytes of {} group {} number {} round {}, "
                  "expected are {} bytes of {} group {} number {} round {}",
                  place_.peer, found.size, to_string(got.kind), got.group, got.number, got.round,
                  left_.size(), to_string(tag_.kind), tag_.group, tag_.number, tag_.round));
}

// Whether it was the awaited one.
base::result<bool> ring_receiver::take_header() {
  shared_message_header found;
  read_at(place_, tail_, std::as_writable_bytes(std::span(&found, 1)));
  if (found.mark != header_mark) return fail_corrupt(place_.peer, "message header");
  tail_ += ring_line;
  if (found.epoch != epoch_) {
    if (found.size > message_bytes_max) return fail_corrupt(place_.peer, "message size");
    skip_ = found.size > inline_bytes_max ? whole_lines(found.size) : 0;
    ++stale_;
    return false;
  }
  TROUPE_TRY_VOID(check_header(found));
  header_due_ = false;
  if (left_.size() > inline_bytes_max) return true;
  copy_some(left_.data(), found.payload.data(), left_.size());
  left_ = {};
  return true;
}

base::result<bool> ring_receiver::advance(shared_bell& bell) {
  TROUPE_TRY(there, available());
  if (there == 0) return false;
  std::size_t left_here = std::min(there, piece_bytes);
  if (skip_ != 0) {
    const std::uint64_t now = std::min<std::uint64_t>(skip_, left_here);
    skip_ -= now;
    tail_ += now;
    left_here -= static_cast<std::size_t>(now);
  }
  if (header_due_ && left_here != 0) {
    TROUPE_TRY(awaited, take_header());
    left_here = awaited ? left_here - ring_line : 0;
  }
  if (!header_due_ && skip_ == 0) {
    const std::size_t now = std::min(left_.size(), left_here);
    read_at(place_, tail_, left_.first(now));
    left_ = left_.subspan(now);
    tail_ += whole_lines(now);
  }
  release(bell);
  return true;
}

// The writer need not know of every line: a quarter of the ring at a time, which spares it a line
// that changes cores with each message. What is withheld never fills the ring, so the writer goes
// on once the rest is read.
void ring_receiver::release(shared_bell& bell) noexcept {
  if (tail_ - tail_published_ < place_.capacity / 4) return;
  tail_published_ = tail_;
  bell.publish(place_.indices.tail, tail_, place_.peer);
}

}  // namespace troupe::transport
