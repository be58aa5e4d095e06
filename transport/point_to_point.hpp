// What a network, a shared-memory segment or a simulation offers one rank: messages to and from the
// other ranks of its group. `message_collective` builds all collectives on it.
//
// Life cycle: made connected, for one epoch, used by one thread; abort() from any thread, any time,
// ends every wait of the group. An implementation owns framing and epoch on its wire.
//
//   TROUPE_TRY_VOID(peers.exchange(tag, {.to = other, .bytes = out}, {.from = other, .bytes =
//   in}));
#pragma once

#include "base/error.hpp"
#include "transport/arguments.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe::transport {

// Travels with each message and must match at the receiver: ranks that are out of step are found at
// once instead of adding one operation's bytes to another's.
struct message_tag {
  operation kind = operation::none;
  std::uint8_t round = 0;    // step within the operation
  std::uint8_t group = 0;    // which of the groups that share a mesh
  std::uint32_t number = 0;  // operations of this group so far, may wrap
  friend bool operator==(const message_tag&, const message_tag&) = default;
};

struct outgoing {
  int to = 0;
  std::span<const std::byte> bytes;
};

struct incoming {
  int from = 0;
  std::span<std::byte> bytes;
};

class point_to_point {
 public:
  point_to_point() = default;
  point_to_point(const point_to_point&) = delete;
  point_to_point& operator=(const point_to_point&) = delete;
  virtual ~point_to_point() = default;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  // Range: 1 .. group_size_max
  [[nodiscard]] virtual int size() const noexcept = 0;

  // Every operation: messages of one ordered pair arrive in order, once, whole; a size or tag that
  // differs from what arrives is an error at the receiver. Peers are other ranks of the group.
  // Errors: aborted, unavailable (the peer is gone), invalid_argument (size or tag differ).

  // Returns when the bytes may be reused, which may be only when the peer has received them.
  [[nodiscard]] virtual base::result<void> send(message_tag tag, outgoing message) = 0;
  [[nodiscard]] virtual base::result<void> receive(message_tag tag, incoming message) = 0;

  // Both at once, to and from any two peers: neither direction waits for the other, so a ring or a
  // pair of ranks that all call exchange() cannot deadlock whatever the sizes.
  [[nodiscard]] virtual base::result<void> exchange(message_tag tag, outgoing out, incoming in) = 0;

  // Ends every wait of the group, here and on the peers.
  virtual void abort() noexcept = 0;
};

}  // namespace troupe::transport
