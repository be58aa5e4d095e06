// One connection to another node's supervisor: messages over TLS 1.3, or over plain TCP for a gang
// without certificates. Never blocks; what it receives is untrusted until the handshake is done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/tls.hpp"
#include "schemas/supervisor_message.hpp"

namespace troupe::supervisor {

class node_stream {
 public:
  // What the peer has not taken; more than that, and the connection is over.
  static constexpr std::size_t outbox_bytes_max = 256U << 10;

  // `socket` is connected and non-blocking. Errors: as base::tls_context::attach().
  [[nodiscard]] static base::result<node_stream> make(base::fd socket,
                                                      const base::tls_context* context);

  [[nodiscard]] int descriptor() const noexcept;
  [[nodiscard]] short wanted() const noexcept;                   // events for poll()
  [[nodiscard]] bool is_open() const noexcept { return open_; }  // the handshake is done

  void queue(const schemas::supervisor_message& message);
  // Goes on with the handshake, writes and reads what it can; appends the messages that came.
  // Errors: unauthenticated (the peer is not of this gang), unavailable (closed, reset, does not
  // read), invalid_argument (what it sent is no message).
  [[nodiscard]] base::result<void> turn(std::vector<schemas::supervisor_message>& messages);

 private:
  struct moved {
    base::tls_progress progress = base::tls_progress::done;
    std::size_t bytes = 0;
  };
  node_stream() = default;
  [[nodiscard]] base::result<void> shake_hands();
  [[nodiscard]] base::result<void> write_all();
  [[nodiscard]] base::result<void> read_all(std::vector<schemas::supervisor_message>& messages);
  [[nodiscard]] base::result<moved> read(std::span<std::byte> into);
  [[nodiscard]] base::result<moved> write(std::span<const std::byte> bytes);
  [[nodiscard]] base::result<void> cut_messages(std::vector<schemas::supervisor_message>& messages);

  base::fd socket_;                           // plain
  std::optional<base::tls_session> session_;  // or TLS
  bool open_ = false;
  bool wants_write_ = false;
  std::vector<std::byte> inbox_;
  std::vector<std::byte> outbox_;
};

}  // namespace troupe::supervisor
