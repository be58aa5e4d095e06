#include "net/http_server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_map>

#include "base/check.hpp"
#include "base/fd.hpp"
#include "net/client_socket.hpp"
#include "net/connection.hpp"

namespace troupe::net {
namespace {

namespace asio = boost::asio;
using clock = std::chrono::steady_clock;
using boost::system::error_code;

// How exactly every patience is kept, and how old loop_age() becomes in an idle server.
constexpr std::chrono::milliseconds tick_interval{100};
constexpr std::size_t scratch_bytes = 64U << 10;
// Connections taken before the loop turns again.
constexpr int accepts_per_turn = 64;
constexpr std::size_t turned_away_max = 128;  // above the bound, taken to be told so

// The loop's queue for other threads. Lives as long as anybody has an answer.
class gate final : public loop_gate {
 public:
  // Called on the loop with the connections that have news; set before the loop runs.
  using on_changed = std::function<void(const std::vector<std::uint64_t>&)>;

  gate(std::shared_ptr<event_loop> loop, on_changed call, std::function<std::time_t()> wall_clock)
      : loop_(std::move(loop)), on_changed_(std::move(call)), wall_clock_(std::move(wall_clock)) {}

  asio::io_context& io() noexcept { return loop_->io(); }

  void changed(std::uint64_t connection) override {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    changed_.push_back(connection);
    wake();
  }

  bool post(std::function<void()> call) override {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    calls_.push_back(std::move(call));
    wake();
    return true;
  }

  [[nodiscard]] bool stopping() const noexcept override { return stopping_; }
  [[nodiscard]] std::optional<std::time_t> date() const override {
    return wall_clock_ ? std::optional(wall_clock_()) : std::nullopt;
  }
  void set_stopping() noexcept { stopping_ = true; }

  // After the loop: runs what was still promised, then takes nothing more.
  void end() {
    for (;;) {
      std::vector<std::function<void()>> calls;
      {
        const std::lock_guard lock(mutex_);
        changed_.clear();
        calls.swap(calls_);
        ended_ = calls.empty();
        if (ended_) return;
      }
      for (const auto& call : calls) call();
    }
  }

 private:
  void wake() {
    if (std::exchange(woken_, true)) return;
    asio::post(io(), [this] { turn(); });
  }

  void turn() {
    std::vector<std::uint64_t> changed;
    std::vector<std::function<void()>> calls;
    {
      const std::lock_guard lock(mutex_);
      woken_ = false;
      changed.swap(changed_);
      calls.swap(calls_);
    }
    on_changed_(changed);
    for (const auto& call : calls) call();
  }

  const std::shared_ptr<event_loop> loop_;
  const on_changed on_changed_;
  const std::function<std::time_t()> wall_clock_;
  std::mutex mutex_;
  std::vector<std::uint64_t> changed_;  // each connection at most once
  std::vector<std::function<void()>> calls_;
  bool woken_ = false;
  bool ended_ = false;
  std::atomic<bool> stopping_{false};
};

struct peer {
  peer(server_context& context, asio::io_context& io, const connection::client& client,
       clock::time_point now)
      : descriptor(io), state(context, client, now), id(client.id) {}

  asio::posix::stream_descriptor descriptor;  // owns the client's
  connection state;
  const std::uint64_t id;
  bool reading = false;  // a wait is pending
  bool writing = false;
  bool turned_away = false;
};

class asio_server final : public http_server {
 public:
  asio_server(http_server_options options, base::fd listening)
      : gate_(std::make_shared<gate>(
            options.loop ? options.loop : std::make_shared<event_loop>(),
            [this](const auto& changed) { on_changed(changed); }, options.wall_clock)),
        acceptor_(gate_->io(), listening.get()),
        timer_(gate_->io()) {
    (void)listening.release();
    context_.options = std::move(options);
    context_.gate = gate_;
    context_.scratch.resize(scratch_bytes);
    touch(clock::now());
  }
  asio_server(const asio_server&) = delete;
  asio_server& operator=(const asio_server&) = delete;
  // NOLINTNEXTLINE(bugprone-exception-escape): a lock or a join that throws is a defect
  ~asio_server() override { asio_server::stop(std::chrono::milliseconds(0)); }

  void run() {
    thread_ = std::thread([this] {
      wait_for_clients();
      wait_for_tick();
      gate_->io().run();
      gate_->end();
      // What still waits is aborted here: the queue may outlive this server, its peers may not.
      timer_.cancel();
      stop_timer_.reset();
      gate_->io().restart();
      gate_->io().poll();
    });
    loop_thread_ = thread_.get_id();
  }

  void stop(std::chrono::milliseconds patience) override {
    TROUPE_CHECK(std::this_thread::get_id() != loop_thread_);
    const clock::time_point deadline = clock::now() + patience;
    (void)gate_->post([this, deadline] { begin_stop(deadline); });
    const std::lock_guard lock(join_);
    if (thread_.joinable()) thread_.join();
  }

  bool post(std::function<void()> call) override { return gate_->post(std::move(call)); }

  [[nodiscard]] std::chrono::milliseconds loop_age() const noexcept override {
    const clock::time_point turned{clock::duration(turned_.load(std::memory_order_relaxed))};
    return std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - turned);
  }

  [[nodiscard]] http_server_counters counters() const noexcept override {
    const server_totals& totals = context_.totals;
    return {.connections = totals.connections.load(std::memory_order_relaxed),
            .requests = totals.requests.load(std::memory_order_relaxed),
            .refused = totals.refused.load(std::memory_order_relaxed),
            .cut_slow = totals.cut_slow.load(std::memory_order_relaxed),
            .bytes_sent = totals.bytes_sent.load(std::memory_order_relaxed)};
  }

 private:
  using peer_ptr = std::shared_ptr<peer>;

  void touch(clock::time_point now) {
    turned_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }

  // --- connections come ---
  void wait_for_clients() {
    if (accepting_ || gate_->stopping() || full()) return;
    accepting_ = true;
    acceptor_.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code failed) {
      accepting_ = false;
      if (failed || gate_->stopping()) return;
      if (accept_some()) wait_for_clients();  // else at the next tick
    });
  }

  [[nodiscard]] const http_limits& limits() const noexcept { return context_.options.limits; }
  [[nodiscard]] std::size_t open() const noexcept { return peers_.size() - turned_away_; }
  [[nodiscard]] bool full() const noexcept {
    return open() >= limits().connections_max && turned_away_ >= turned_away_max;
  }

  // False when this process has no room for another descriptor.
  bool accept_some() {
    touch(clock::now());
    for (int i = 0; i < accepts_per_turn && !full(); ++i) {
      client_socket client = accept_client(acceptor_.native_handle(), limits());
      if (!client.descriptor) return !client.exhausted;
      if (!take(std::move(client))) return false;
    }
    return true;
  }

  bool take(client_socket from) {
    const connection::client client = {.id = ++last_id_,
                                       .descriptor = from.descriptor.get(),
                                       .address = std::move(from.address),
                                       .loopback = from.loopback};
    auto accepted = std::make_shared<peer>(context_, gate_->io(), client, clock::now());
    error_code failed;
    accepted->descriptor.assign(client.descriptor, failed);
    if (failed) return false;  // no room in epoll
    (void)from.descriptor.release();
    if (open() >= limits().connections_max) {
      accepted->turned_away = true;
      ++turned_away_;
      accepted->state.turn_away(clock::now());
    }
    peers_.emplace(client.id, accepted);
    context_.totals.connections.store(open(), std::memory_order_relaxed);
    settle(accepted);
    return true;
  }

  // --- connections live ---
  // After anything happened to a connection: waits for what it wants next.
  void settle(const peer_ptr& one) {
    if (one->state.closed()) {
      remove(*one);
      return;
    }
    if (one->state.wants_read() && !one->reading) {
      one->reading = true;
      one->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                 [this, one](error_code failed) {
                                   one->reading = false;
                                   if (failed) return;
                                   one->state.on_readable(clock::now());
                                   settle(one);
                                 });
    }
    if (one->state.wants_write() && !one->writing) {
      one->writing = true;
      one->descriptor.async_wait(asio::posix::stream_descriptor::wait_write,
                                 [this, one](error_code failed) {
                                   one->writing = false;
                                   if (failed) return;
                                   one->state.on_writable(clock::now());
                                   settle(one);
                                 });
    }
  }

  void remove(peer& one) {
    if (!one.descriptor.is_open()) return;
    error_code ignored;
    one.descriptor.close(ignored);  // NOLINT(bugprone-unused-return-value): told by `ignored`
    if (one.turned_away) --turned_away_;
    peers_.erase(one.id);
    context_.totals.connections.store(open(), std::memory_order_relaxed);
    wait_for_clients();
    if (gate_->stopping() && peers_.empty()) gate_->io().stop();
  }

  void on_changed(const std::vector<std::uint64_t>& changed) {
    const clock::time_point now = clock::now();
    touch(now);
    for (const std::uint64_t id : changed) {
      const auto found = peers_.find(id);
      if (found == peers_.end()) continue;
      const peer_ptr one = found->second;
      one->state.on_changed(now);
      settle(one);
    }
  }

  template <class Call>
  void for_each_peer(Call call) {
    std::vector<peer_ptr> all;
    all.reserve(peers_.size());
    for (const auto& [id, one] : peers_) all.push_back(one);
    for (const peer_ptr& one : all) {
      call(one->state);
      settle(one);
    }
  }

  void wait_for_tick() {
    timer_.expires_after(tick_interval);
    timer_.async_wait([this](error_code failed) {
      if (failed) return;
      const clock::time_point now = clock::now();
      touch(now);
      for_each_peer([now](connection& one) { one.on_tick(now); });
      if (stop_at_ && now >= *stop_at_) end();
      wait_for_clients();
      wait_for_tick();
    });
  }

  // --- connections end ---
  void begin_stop(clock::time_point deadline) {
    const clock::time_point now = clock::now();
    stop_at_ = std::min(deadline, stop_at_.value_or(deadline));
    if (!gate_->stopping()) {
      gate_->set_stopping();
      error_code ignored;
      acceptor_.close(ignored);  // NOLINT(bugprone-unused-return-value): told by `ignored`
      for_each_peer([now](connection& one) { one.drain(now); });
    }
    if (peers_.empty() || now >= *stop_at_) {
      end();
      return;
    }
    stop_timer_.emplace(gate_->io(), *stop_at_);
    stop_timer_->async_wait([this](error_code failed) {
      if (!failed) end();
    });
  }

  void end() {
    for_each_peer([](connection& one) { one.cut(); });
    gate_->io().stop();
  }

  const std::shared_ptr<gate> gate_;
  server_context context_;
  asio::posix::stream_descriptor acceptor_;
  asio::steady_timer timer_;
  std::optional<asio::steady_timer> stop_timer_;
  std::optional<clock::time_point> stop_at_;
  std::unordered_map<std::uint64_t, peer_ptr> peers_;
  std::size_t turned_away_ = 0;  // of peers_
  std::uint64_t last_id_ = 0;
  bool accepting_ = false;
  std::atomic<clock::rep> turned_{0};
  std::mutex join_;
  std::thread thread_;
  std::thread::id loop_thread_;
};

}  // namespace

base::result<std::unique_ptr<http_server>> http_server::start(http_server_options options) {
  int listens = 0;
  socklen_t length = sizeof listens;
  if (::getsockopt(options.listening, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 ||
      listens == 0) {
    return base::fail(base::error_code::invalid_argument, "net",
                      fmt::format("descriptor {} is not a listening socket: give one that "
                                  "base::listen_on() made",
                                  options.listening));
  }
  if (!options.handler) {
    return base::fail(base::error_code::invalid_argument, "net", "no handler for requests");
  }
  base::fd own(::fcntl(options.listening, F_DUPFD_CLOEXEC, 3));
  // Shared with every holder of this socket, and right for all: with several processes that accept,
  // a connection that one of them was woken for may be gone.
  const int flags = ::fcntl(own.get(), F_GETFL);
  if (!own || flags < 0 || ::fcntl(own.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return base::fail(base::error_code::resource_exhausted, "net",
                      fmt::format("no descriptor for the listening socket ({}): raise ulimit -n",
                                  std::strerror(errno)));
  }
  try {
    auto server = std::make_unique<asio_server>(std::move(options), std::move(own));
    server->run();
    return server;
  } catch (const std::exception& failed) {
    return base::fail(base::error_code::resource_exhausted, "net",
                      fmt::format("the HTTP server's loop cannot start ({}): raise ulimit -n or "
                                  "ulimit -u",
                                  failed.what()));
  }
}

}  // namespace troupe::net
