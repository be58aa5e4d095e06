// What the tests of the HTTP server share: a server on a free port of loopback, and a raw client
// whose every wait has a deadline.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/socket.hpp"
#include "net/http_server.hpp"

namespace troupe::net::test {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds patience{20};

// Waits until something holds; false after the patience.
inline bool eventually(const std::function<bool()>& holds) {
  const auto deadline = steady_clock::now() + patience;
  while (!holds()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// What a promise is kept with; an exception, which fails the test, after the patience.
template <class Value>
Value kept(std::promise<Value>& promise) {
  std::future<Value> future = promise.get_future();
  if (future.wait_for(patience) != std::future_status::ready) {
    throw std::runtime_error("waited in vain for what the test expects");
  }
  return future.get();
}

using handler = std::function<void(http_request, std::shared_ptr<response>)>;

struct rig {
  explicit rig(handler handle, http_limits limits = {}) {
    auto socket = base::listen_on({.host = "127.0.0.1"});
    if (!socket) throw std::runtime_error(socket.error().message);
    listening = std::move(*socket);
    auto started = http_server::start(
        {.listening = listening.descriptor.get(), .limits = limits, .handler = std::move(handle)});
    if (!started) throw std::runtime_error(started.error().message);
    server = std::move(*started);
  }
  [[nodiscard]] std::string url(std::string_view path) const {
    return "http://127.0.0.1:" + std::to_string(listening.port) + std::string(path);
  }

  base::listening_socket listening;
  std::unique_ptr<http_server> server;
};

// Answers with what it understood: one line each.
inline void echo(const http_request& request, const std::shared_ptr<response>& answer) {
  answer->send(200, {{"content-type", "text/plain"}},
               request.method + " " + request.target + " [" + request.body + "]");
}

class raw_client {
 public:
  explicit raw_client(const rig& server) : raw_client(server.listening.port) {}
  explicit raw_client(std::uint16_t port) {
    auto connected = base::connect_to("127.0.0.1", port, std::chrono::seconds(10));
    if (!connected) throw std::runtime_error(connected.error().message);
    socket_ = std::move(*connected);
  }

  // All of it, or less when the server has closed.
  void send(std::string_view bytes) {
    const auto deadline = steady_clock::now() + patience;
    while (!bytes.empty() && steady_clock::now() < deadline) {
      const ssize_t n = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(n));
      } else if (errno != EAGAIN && errno != EINTR) {
        return;
      } else {
        wait(POLLOUT, milliseconds(100));
      }
    }
  }

  // Reads until `done` holds for what has come, the connection ends, or the patience does.
  std::string& read_until(const std::function<bool(const std::string&)>& done) {
    const auto deadline = steady_clock::now() + patience;
    while (!done(received_) && !ended_ && steady_clock::now() < deadline) {
      wait(POLLIN, milliseconds(100));
      std::array<char, 16384> piece;
      const ssize_t n = ::recv(socket_.get(), piece.data(), piece.size(), 0);
      if (n > 0) received_.append(piece.data(), static_cast<std::size_t>(n));
      if (n == 0) ended_ = true;
      if (n < 0 && errno != EAGAIN && errno != EINTR) ended_ = reset_ = true;
    }
    return received_;
  }
  std::string& read_until(std::string_view text) {
    return read_until([text](const std::string& got) { return got.find(text) != got.npos; });
  }
  std::string& read_to_end() {
    return read_until([](const std::string&) { return false; });
  }

  void close() { socket_.reset(); }
  void end_output() { ::shutdown(socket_.get(), SHUT_WR); }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] bool was_reset() const { return reset_; }
  [[nodiscard]] int descriptor() const { return socket_.get(); }
  std::string& received() { return received_; }

 private:
  void wait(short events, milliseconds at_most) const {
    pollfd state = {.fd = socket_.get(), .events = events, .revents = 0};
    ::poll(&state, 1, static_cast<int>(at_most.count()));
  }

  base::fd socket_;
  std::string received_;
  bool ended_ = false;
  bool reset_ = false;
};

// The status of the first answer in `bytes`; 0 when there is none.
inline int status_of(std::string_view bytes) {
  if (bytes.size() < 12 || bytes.substr(0, 9) != "HTTP/1.1 ") return 0;
  return std::stoi(std::string(bytes.substr(9, 3)));
}

inline std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

}  // namespace troupe::net::test
