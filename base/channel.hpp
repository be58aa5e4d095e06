// One end of a pair of local sockets that keeps datagrams apart (SOCK_SEQPACKET) and carries
// descriptors beside them. Never blocks; what it receives is untrusted.
//
//   TROUPE_TRY(ends, base::channel::make_pair());
//   ends.first.send(bytes, {segment.get()});
//   poll(ends.second.descriptor()) ...; TROUPE_TRY(got, ends.second.receive(64U << 10));
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

class channel {
 public:
  static constexpr std::size_t descriptors_max = 4;  // beside one datagram

  [[nodiscard]] static result<std::pair<channel, channel>> make_pair();
  // Takes a connected SOCK_SEQPACKET socket, e.g. one that was inherited.
  explicit channel(fd socket) noexcept : socket_(std::move(socket)) {}

  [[nodiscard]] int descriptor() const noexcept { return socket_.get(); }
  [[nodiscard]] fd release() && noexcept { return std::move(socket_); }

  // True when sent, false when the peer has too much unread: poll for POLLOUT and try again.
  // Shape: bytes not empty, at most descriptors_max descriptors, which stay the caller's.
  // Errors: unavailable (the peer is gone), resource_exhausted (too large for the socket).
  [[nodiscard]] result<bool> send(std::span<const std::uint8_t> bytes,
                                  std::span<const int> descriptors = {}) const;

  struct datagram {
    enum class what : std::uint8_t { nothing, bytes, closed };
    what kind = what::nothing;
    std::vector<std::uint8_t> bytes;
    std::vector<fd> descriptors;  // close-on-exec
  };
  // One datagram, if one waits. Errors: invalid_argument (longer than `bytes_max`, or too many
  // descriptors: it is dropped and the next one can be received), unavailable (reset).
  [[nodiscard]] result<datagram> receive(std::size_t bytes_max) const;

 private:
  fd socket_;
};

}  // namespace troupe::base
