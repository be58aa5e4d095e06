// One direction of one pair of ranks: a ring of bytes in the shared segment, one writer, one
// reader, and the messages in it. Internal to the shared-memory data plane.
//
// A message is a header of one line (64 bytes) that ends in a payload of up to 32 bytes, or is
// followed by a longer one, padded to whole lines. It goes through in pieces, so it may be longer
// than the ring. The indices count bytes since the epoch began. Each side keeps its own index to
// itself and only publishes it, after the bytes it speaks of; what the other side published is
// copied once and refused when it is impossible. So a writer killed in the act has published
// nothing that it has not written, and a reader never looks beyond the ring.
#pragma once

#include "base/error.hpp"
#include "transport/point_to_point.hpp"
#include "transport/shared_memory_bell.hpp"
#include "transport/shared_memory_segment.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe::transport {

inline constexpr std::size_t ring_line = 64;
inline constexpr std::size_t inline_bytes_max = 32;

struct shared_message_header {
  base::epoch_id epoch;
  std::uint64_t size = 0;
  std::uint32_t number = 0;
  std::uint8_t kind = 0;
  std::uint8_t round = 0;
  std::uint8_t group = 0;
  std::uint8_t mark = 0;
  std::array<std::byte, inline_bytes_max> payload{};
};
static_assert(sizeof(shared_message_header) == ring_line);

// What a ring of one direction is made of.
struct ring_place {
  shared_ring_indices& indices;
  std::byte* bytes = nullptr;
  std::size_t capacity = 0;  // a power of two
  int peer = 0;
};

[[nodiscard]] inline ring_place place_of_ring(const shared_segment& segment, int from, int to,
                                              int peer) noexcept {
  return {.indices = segment.indices(from, to),
          .bytes = segment.ring(from, to),
          .capacity = ring_bytes(segment.ranks()),
          .peer = peer};
}

// Sends one message at a time. Used by the thread of its rank.
class ring_sender {
 public:
  explicit ring_sender(ring_place place) noexcept : place_(place) {}

  void start(base::epoch_id epoch, message_tag tag, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] bool done() const noexcept { return !header_due_ && left_.empty(); }
  // Writes what fits, at most a piece, and publishes it. Whether it could write anything.
  // Errors: data_loss.
  [[nodiscard]] base::result<bool> advance(shared_bell& bell);
  // Whether the reader has made room since advance() found none.
  [[nodiscard]] bool changed() const noexcept {
    return place_.indices.tail.load(std::memory_order_seq_cst) != tail_seen_;
  }

 private:
  [[nodiscard]] base::result<std::size_t> room();

  const ring_place place_;
  std::uint64_t head_ = 0;       // published, or about to be
  std::uint64_t tail_seen_ = 0;  // the last valid one
  bool header_due_ = false;
  shared_message_header header_;
  std::span<const std::byte> left_;
};

// Receives one message at a time. Used by the thread of its rank.
class ring_receiver {
 public:
  explicit ring_receiver(ring_place place) noexcept : place_(place) {}

  void start(base::epoch_id epoch, message_tag tag, std::span<std::byte> bytes) noexcept;
  [[nodiscard]] bool done() const noexcept { return !header_due_ && left_.empty(); }
  // Takes what is there, at most a piece. Whether it could take anything. A message of another
  // epoch is dropped and counted.
  // Errors: invalid_argument (another message than expected), data_loss.
  [[nodiscard]] base::result<bool> advance(shared_bell& bell);
  // Whether the writer has published more since advance() found nothing.
  [[nodiscard]] bool changed() const noexcept {
    return place_.indices.head.load(std::memory_order_seq_cst) != head_seen_;
  }
  // Whether nothing lies in the ring.
  [[nodiscard]] bool empty() const noexcept {
    return place_.indices.head.load(std::memory_order_seq_cst) == tail_;
  }
  [[nodiscard]] std::uint64_t stale() const noexcept { return stale_; }

 private:
  [[nodiscard]] base::result<std::size_t> available();
  [[nodiscard]] base::result<bool> take_header();
  [[nodiscard]] base::result<void> check_header(const shared_message_header& found) const;
  void release(shared_bell& bell) noexcept;

  const ring_place place_;
  std::uint64_t tail_ = 0;
  std::uint64_t tail_published_ = 0;
  std::uint64_t head_seen_ = 0;  // the last valid one
  bool header_due_ = false;
  base::epoch_id epoch_;
  message_tag tag_;
  std::span<std::byte> left_;
  std::uint64_t skip_ = 0;  // padding, and the payload of a stale message
  std::uint64_t stale_ = 0;
};

}  // namespace troupe::transport
