#include "actors/rank/supervisor_link.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <type_traits>
#include <utility>

#include "base/clock.hpp"
#include "schemas/codec.hpp"

namespace troupe::actors {

base::result<std::unique_ptr<supervisor_link>> supervisor_link::make(base::fd channel) {
  base::fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) {
    return base::fail(base::error_code::resource_exhausted, "actors",
                      "no descriptor for the supervisor's channel");
  }
  return std::unique_ptr<supervisor_link>(
      new supervisor_link(base::channel(std::move(channel)), std::move(stop)));
}

supervisor_link::supervisor_link(base::channel channel, base::fd stop)
    : channel_(std::move(channel)), stop_(std::move(stop)), heard_ns_(base::steady_ns()) {}

supervisor_link::~supervisor_link() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(stop_.get(), &one, sizeof one));
  if (thread_.joinable()) thread_.join();
}

void supervisor_link::listen(handlers told) {
  thread_ = std::thread([this, told = std::move(told)] { run(told); });
}

void supervisor_link::run(const handlers& told) {
  for (;;) {
    std::array<pollfd, 2> watched{{{.fd = channel_.descriptor(), .events = POLLIN, .revents = 0},
                                   {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) return;
    if (watched[1].revents != 0) return;
    while (take_one(told)) {
    }
    if (closed_) {
      told.gone();
      return;
    }
  }
}

bool supervisor_link::take_one(const handlers& told) {
  auto received = channel_.receive(schemas::wire_limits::supervisor_bytes_max);
  if (!received) {
    closed_ = received.error().code != base::error_code::invalid_argument;
    return !closed_;
  }
  using what = base::channel::datagram::what;
  if (received->kind == what::nothing) return false;
  if (received->kind == what::closed) {
    closed_ = true;
    return false;
  }
  heard_ns_ = base::steady_ns();
  dispatch(told, *std::move(received));
  return true;
}

void supervisor_link::dispatch(const handlers& told, base::channel::datagram received) {
  const auto message = schemas::decode_supervisor_message(received.bytes);
  if (!message) return;  // a newer supervisor's: it was checked when the gang was started
  std::visit(
      [&](const auto& body) {
        using kind = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<kind, schemas::ping>) {
          send({schemas::pong{body.number}});
        } else if constexpr (std::is_same_v<kind, schemas::control_plane_at>) {
          told.control_plane_at(body);
        } else if constexpr (std::is_same_v<kind, schemas::segment>) {
          if (!received.descriptors.empty()) {
            told.segment(body.epoch, std::move(received.descriptors.front()));
          }
        } else if constexpr (std::is_same_v<kind, schemas::rank_lost>) {
          told.rank_lost(body);
        } else if constexpr (std::is_same_v<kind, schemas::drain>) {
          told.drain(body);
        }
      },
      message->body);
}

void supervisor_link::send(const schemas::supervisor_message& message) noexcept {
  constexpr int patience_ms = 200;
  const schemas::wire_bytes bytes = schemas::encode(message);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto sent = channel_.send(bytes);
    if (!sent || *sent) return;
    pollfd room{.fd = channel_.descriptor(), .events = POLLOUT, .revents = 0};
    static_cast<void>(::poll(&room, 1, patience_ms));
  }
}

std::chrono::milliseconds supervisor_link::silence() const noexcept {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::nanoseconds(base::steady_ns() - heard_ns_));
}

}  // namespace troupe::actors
