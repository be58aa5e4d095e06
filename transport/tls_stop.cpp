#include "transport/tls_stop.hpp"

#include <fmt/format.h>

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace troupe::transport {
namespace {

// connect() to no address dissolves a TCP connection and sends a reset (tcp(7)); the descriptor
// stays open for its owner, who may be in a call on it.
void reset(int socket) noexcept {
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  if (::connect(socket, &nobody, sizeof(nobody)) != 0) ::shutdown(socket, SHUT_RDWR);
}

}  // namespace

base::result<std::shared_ptr<tls_stop>> tls_stop::make() {
  base::fd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) {
    return base::fail(base::error_code::resource_exhausted, "transport",
                      fmt::format("no eventfd: {}", std::system_category().message(errno)));
  }
  return std::shared_ptr<tls_stop>(new tls_stop(std::move(event)));
}

void tls_stop::watch(int socket) {
  const std::lock_guard lock(mutex_);
  sockets_.push_back(socket);
  if (raised()) reset(socket);
}

void tls_stop::forget(int socket) noexcept {
  const std::lock_guard lock(mutex_);
  sockets_.erase(std::remove(sockets_.begin(), sockets_.end(), socket), sockets_.end());
}

void tls_stop::raise() noexcept {
  const std::lock_guard lock(mutex_);
  if (raised_.exchange(true, std::memory_order_acq_rel)) return;
  ::eventfd_write(event_.get(), 1);
  for (const int socket : sockets_) reset(socket);
}

}  // namespace troupe::transport
