#include "supervisor/node_stream.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <system_error>
#include <utility>

#include "schemas/codec.hpp"

namespace troupe::supervisor {
namespace {

using base::error_code;
using base::tls_progress;

constexpr std::size_t header_bytes = 4;
// Heartbeats and losses are some hundred bytes; a peer that sends more at once floods.
constexpr std::size_t read_bytes_max = 1U << 20;

tl::unexpected<base::error> broken(error_code code, std::string message) {
  return base::fail(code, "supervisor", std::move(message), code == error_code::unavailable);
}

}  // namespace

base::result<node_stream> node_stream::make(base::fd socket, const base::tls_context* context) {
  node_stream made;
  if (context == nullptr) {
    made.socket_ = std::move(socket);
    made.open_ = true;
    return made;
  }
  TROUPE_TRY(session, context->attach(std::move(socket)));
  made.session_.emplace(std::move(session));
  return made;
}

int node_stream::descriptor() const noexcept {
  return session_ ? session_->descriptor() : socket_.get();
}

short node_stream::wanted() const noexcept {
  return wants_write_ || (open_ && !outbox_.empty()) ? POLLIN | POLLOUT : POLLIN;
}

void node_stream::queue(const schemas::supervisor_message& message) {
  const schemas::wire_bytes bytes = schemas::encode(message);
  for (std::size_t at = 0; at < header_bytes; ++at) {
    outbox_.push_back(static_cast<std::byte>((bytes.size() >> (8 * at)) & 0xFF));
  }
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  outbox_.insert(outbox_.end(), data, data + bytes.size());
}

base::result<void> node_stream::turn(std::vector<schemas::supervisor_message>& messages) {
  wants_write_ = false;
  if (!open_) TROUPE_TRY_VOID(shake_hands());
  if (!open_) return {};
  TROUPE_TRY_VOID(write_all());
  return read_all(messages);
}

base::result<void> node_stream::shake_hands() {
  TROUPE_TRY(progress, session_->handshake());
  if (progress == tls_progress::closed) {
    return broken(error_code::unavailable, "the other side closed the connection");
  }
  open_ = progress == tls_progress::done;
  wants_write_ = progress == tls_progress::want_write;
  return {};
}

base::result<void> node_stream::write_all() {
  if (outbox_.size() > outbox_bytes_max) {
    return broken(error_code::unavailable, "it does not read what it is told");
  }
  std::size_t sent = 0;
  while (sent < outbox_.size()) {
    TROUPE_TRY(done, write(std::span(outbox_).subspan(sent)));
    if (done.progress == tls_progress::closed) {
      return broken(error_code::unavailable, "the other side closed the connection");
    }
    if (done.progress != tls_progress::done) {
      wants_write_ = done.progress == tls_progress::want_write;
      break;
    }
    sent += done.bytes;
  }
  outbox_.erase(outbox_.begin(), outbox_.begin() + static_cast<std::ptrdiff_t>(sent));
  return {};
}

base::result<void> node_stream::read_all(std::vector<schemas::supervisor_message>& messages) {
  std::array<std::byte, 16384> piece{};
  std::size_t taken = 0;
  while (taken < read_bytes_max) {
    TROUPE_TRY(done, read(piece));
    if (done.progress == tls_progress::closed) {
      return broken(error_code::unavailable, "the other side closed the connection");
    }
    if (done.progress != tls_progress::done) {
      wants_write_ = wants_write_ || done.progress == tls_progress::want_write;
      return {};
    }
    taken += done.bytes;
    inbox_.insert(inbox_.end(), piece.begin(),
                  piece.begin() + static_cast<std::ptrdiff_t>(done.bytes));
    TROUPE_TRY_VOID(cut_messages(messages));
  }
  return broken(error_code::unavailable, "it sends more than a supervisor does");
}

base::result<void> node_stream::cut_messages(std::vector<schemas::supervisor_message>& messages) {
  std::size_t at = 0;
  while (inbox_.size() - at >= header_bytes) {
    std::size_t length = 0;
    for (std::size_t byte = 0; byte < header_bytes; ++byte) {
      length |= std::to_integer<std::size_t>(inbox_[at + byte]) << (8 * byte);
    }
    if (length == 0 || length > schemas::wire_limits::supervisor_bytes_max) {
      return broken(error_code::invalid_argument,
                    fmt::format("it sent a message of {} bytes", length));
    }
    if (inbox_.size() - at - header_bytes < length) break;
    const auto* data = reinterpret_cast<const std::uint8_t*>(inbox_.data() + at + header_bytes);
    TROUPE_TRY(message, schemas::decode_supervisor_message({data, length}));
    messages.push_back(std::move(message));
    at += header_bytes + length;
  }
  inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(at));
  return {};
}

base::result<node_stream::moved> node_stream::read(std::span<std::byte> into) {
  if (session_) {
    TROUPE_TRY(done, session_->read(into));
    return moved{done.progress, done.bytes};
  }
  const ssize_t length = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
  if (length > 0) return moved{tls_progress::done, static_cast<std::size_t>(length)};
  if (length == 0) return moved{tls_progress::closed, 0};
  if (errno == EAGAIN || errno == EINTR) return moved{tls_progress::want_read, 0};
  return broken(error_code::unavailable, std::system_category().message(errno));
}

base::result<node_stream::moved> node_stream::write(std::span<const std::byte> bytes) {
  if (session_) {
    TROUPE_TRY(done, session_->write(bytes));
    return moved{done.progress, done.bytes};
  }
  const ssize_t length =
      ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (length >= 0) return moved{tls_progress::done, static_cast<std::size_t>(length)};
  if (errno == EAGAIN || errno == EINTR) return moved{tls_progress::want_write, 0};
  return broken(error_code::unavailable, std::system_category().message(errno));
}

}  // namespace troupe::supervisor
