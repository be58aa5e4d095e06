#include "transport/tls_meeting.hpp"

#include "base/socket.hpp"
#include "transport/arguments.hpp"

#include <fmt/format.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace troupe::transport {
namespace {

using base::error_code;
using std::chrono::milliseconds;
using steady = std::chrono::steady_clock;

// A dialled rank that refuses or resets is dialled again after this: its queue was full, or it is
// starting. A dead one costs 50 calls a second.
constexpr milliseconds pause_between_tries{20};
// Taken from the listener's queue in one turn, so that a flood does not keep the calls under way.
constexpr int calls_per_turn = 32;
// Places in the list that is polled.
constexpr std::size_t listener_at = 1;
constexpr std::size_t first_call_at = 2;

tl::unexpected<base::error> fail(error_code code, std::string message, bool retryable = false) {
  return base::fail(code, "transport", std::move(message), retryable);
}

// A host that vanishes is noticed by the supervisors' heartbeats within a second; should nobody
// watch, the kernel gives up after ten minutes. Not earlier: the bound also ends connections whose
// peer takes no bytes for so long, and a rank may load weights meanwhile. The buffers are left to
// the kernel, which sizes them to the path; a fixed SO_SNDBUF would be cut to wmem_max, 208 KiB.
base::result<void> tune(int socket) {
  constexpr int on = 1;
  constexpr int probe_after_seconds = 10;
  constexpr unsigned give_up_after_ms = 600'000;
  const auto set = [socket](int level, int name, const auto& value) {
    return ::setsockopt(socket, level, name, &value, sizeof(value)) == 0;
  };
  if (set(IPPROTO_TCP, TCP_NODELAY, on) && set(SOL_SOCKET, SO_KEEPALIVE, on) &&
      set(IPPROTO_TCP, TCP_KEEPIDLE, probe_after_seconds) &&
      set(IPPROTO_TCP, TCP_USER_TIMEOUT, give_up_after_ms)) {
    return {};
  }
  return fail(error_code::unavailable,
              "cannot set up a connection: " + std::system_category().message(errno), true);
}

// Rounded up: poll(0) before the time has come would spin.
int poll_ms(steady::duration left) noexcept {
  const auto ms = std::chrono::ceil<milliseconds>(left).count();
  return static_cast<int>(std::clamp<long>(ms, 0, 60'000));
}

}  // namespace

tls_meeting::tls_meeting(parts given, base::fd listener, std::vector<tls_wire::endpoint> where)
    : stop_(std::move(given.stop)),
      counters_(std::move(given.counters)),
      rank_(given.seat.rank),
      listener_(std::move(listener)),
      where_(std::move(where)),
      seats_(static_cast<std::size_t>(given.seat.shape.tp_size * given.seat.shape.pp_size)),
      desk_{.seat = given.seat,
            .server = given.server,
            .client = given.client,
            .is_taken = [this](int rank) {
              return of(rank).link.session.has_value() || of(rank).promised;
            }} {}

tls_meeting::~tls_meeting() {
  for (const seat_state& one : seats_) {
    if (one.link.session) stop_->forget(one.link.session->descriptor());
  }
}

base::result<std::vector<tls_link>> tls_meeting::hold(milliseconds patience) {
  const time deadline = steady::now() + patience;
  // accept() must not wait for a caller that has gone again.
  const int flags = ::fcntl(listener_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(listener_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(error_code::internal, "fcntl: " + std::system_category().message(errno));
  }
  while (!complete()) {
    if (stop_->raised()) return fail_aborted();
    if (steady::now() >= deadline) return tl::unexpected(missing(patience));
    TROUPE_TRY_VOID(turn(deadline));
  }
  listener_.reset();
  std::vector<tls_link> links;
  for (seat_state& one : seats_) links.push_back(std::exchange(one.link, {}));
  return links;
}

bool tls_meeting::complete() const noexcept {
  const auto seated = std::count_if(seats_.begin(), seats_.end(), [](const seat_state& one) {
    return one.link.session.has_value();
  });
  return seated + 1 == size();
}

base::result<void> tls_meeting::turn(time deadline) {
  TROUPE_TRY_VOID(dial_due(steady::now(), deadline));
  std::vector<pollfd> sockets = polled();
  const int timeout_ms = poll_ms(next_event(deadline) - steady::now());
  if (::poll(sockets.data(), sockets.size(), timeout_ms) < 0) {
    if (errno == EINTR) return {};
    return fail(error_code::internal, "poll: " + std::system_category().message(errno));
  }
  if (stop_->raised()) return fail_aborted();
  TROUPE_TRY_VOID(look_for_resets(sockets));
  TROUPE_TRY_VOID(advance_all(std::span(sockets).subspan(first_call_at), steady::now()));
  if (sockets[listener_at].revents != 0) TROUPE_TRY_VOID(take_calls(steady::now()));
  return {};
}

// The stop, the listener, the calls; then the seated, of whom only a reset is of interest yet.
std::vector<pollfd> tls_meeting::polled() const {
  const bool awaits_calls = rank_ + 1 < size();
  std::vector<pollfd> sockets = {
      {.fd = stop_->descriptor(), .events = POLLIN, .revents = 0},
      {.fd = awaits_calls ? listener_.get() : -1, .events = POLLIN, .revents = 0}};
  for (const auto& [call, deadline] : calls_) {
    sockets.push_back({.fd = call.descriptor(), .events = call.waits_for(), .revents = 0});
  }
  for (const seat_state& one : seats_) {
    const int socket = one.link.session ? one.link.session->descriptor() : -1;
    sockets.push_back({.fd = socket, .events = 0, .revents = 0});
  }
  return sockets;
}

tls_meeting::time tls_meeting::next_event(time deadline) const {
  time next = deadline;
  for (const pending_call& one : calls_) next = std::min(next, one.deadline);
  for (int rank = 0; rank < rank_; ++rank) {
    const seat_state& one = seats_[static_cast<std::size_t>(rank)];
    if (!one.link.session && !one.promised) next = std::min(next, one.next_try);
  }
  return next;
}

base::result<void> tls_meeting::look_for_resets(const std::vector<pollfd>& sockets) const {
  for (std::size_t rank = 0; rank < seats_.size(); ++rank) {
    const pollfd& one = sockets[sockets.size() - seats_.size() + rank];
    if ((one.revents & POLLERR) == 0) continue;
    return fail(error_code::unavailable,
                fmt::format("{} is gone: the connection was reset", seats_[rank].link.peer), true);
  }
  return {};
}

base::result<void> tls_meeting::dial_due(time now, time deadline) {
  for (int rank = 0; rank < rank_; ++rank) {
    seat_state& seat = of(rank);
    if (seat.link.session || seat.promised || now < seat.next_try) continue;
    const tls_wire::endpoint& at = where_[static_cast<std::size_t>(rank)];
    seat.next_try = now + pause_between_tries;
    auto socket = base::begin_connect(at.host, at.port);
    if (!socket && !socket.error().retryable) return tl::unexpected(std::move(socket).error());
    if (!socket) {
      seat.trouble = std::move(socket).error().message;
      continue;
    }
    TROUPE_TRY_VOID(tune(socket->get()));
    seat.promised = true;
    // The peer shakes hands when it comes to its own connect(): it may have all the time there is.
    calls_.push_back(
        {.call = tls_call::dialled(rank, at, std::move(*socket)), .deadline = deadline});
  }
  return {};
}

base::result<void> tls_meeting::take_calls(time now) {
  for (int taken = 0; taken < calls_per_turn; ++taken) {
    base::fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      const bool full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
      if (!full) return {};  // nobody waits, or the caller has gone again
      if (drop_oldest()) continue;
      return fail(error_code::resource_exhausted,
                  fmt::format("no descriptor for a calling rank: {}; raise the limit of open files",
                              std::system_category().message(errno)));
    }
    if (calls_.size() >= calls_max) drop_oldest();
    if (!tune(socket.get())) continue;  // gone again
    TROUPE_TRY(call, tls_call::accepted(desk_, std::move(socket)));
    calls_.push_back({.call = std::move(call), .deadline = now + call_patience});
  }
  return {};
}

bool tls_meeting::drop_oldest() {
  const auto oldest = std::find_if(calls_.begin(), calls_.end(), [](const pending_call& one) {
    return !one.call.is_dialled() && one.call.rank() < 0;
  });
  if (oldest == calls_.end()) return false;
  calls_.erase(oldest);
  return true;
}

// Those that poll() found ready or whose time is over; `sockets` begins with theirs, in order.
base::result<void> tls_meeting::advance_all(std::span<const pollfd> sockets, time now) {
  auto socket = sockets.begin();
  for (auto one = calls_.begin(); one != calls_.end(); ++socket) {
    if (socket->revents == 0 && now < one->deadline) {
      ++one;
      continue;
    }
    tls_call& call = one->call;
    const bool was_promised = call.rank() >= 0;
    auto moved = call.advance(desk_);
    if (!was_promised && call.rank() >= 0) of(call.rank()).promised = true;
    if (moved && !call.is_seated() && now >= one->deadline) {
      moved = fail(error_code::deadline_exceeded, call.peer() + ": it fell silent", true);
    }
    if (!moved) {
      TROUPE_TRY_VOID(end_of(call, moved.error()));
    } else if (call.is_seated()) {
      seat(call);
    } else {
      ++one;
      continue;
    }
    one = calls_.erase(one);
  }
  return {};
}

// Of a rank that was dialled it may be the end of all, of a caller never.
base::result<void> tls_meeting::end_of(const tls_call& ended, const base::error& why) {
  if (ended.is_stale()) counters_->stale_messages.fetch_add(1, std::memory_order_relaxed);
  if (ended.is_dialled() && !why.retryable) return tl::unexpected(why);
  if (ended.rank() >= 0) {
    seat_state& seat = of(ended.rank());
    seat.promised = false;
    seat.next_try = steady::now() + pause_between_tries;
    seat.trouble = why.message;
  } else {
    stranger_ = why.message;
  }
  return {};
}

void tls_meeting::seat(tls_call& one) {
  seat_state& at = of(one.rank());
  at.link = one.take_link();
  at.promised = false;
  stop_->watch(at.link.session->descriptor());
}

base::error tls_meeting::missing(milliseconds patience) const {
  std::string who;
  for (int rank = 0; rank < size(); ++rank) {
    const seat_state& one = seats_[static_cast<std::size_t>(rank)];
    if (one.link.session || rank == rank_) continue;
    const std::string why = !one.trouble.empty() ? one.trouble
                            : rank < rank_       ? "does not answer"
                                                 : "has not called";
    who += fmt::format("{}rank {} ({})", who.empty() ? "" : ", ", rank, why);
  }
  const std::string last =
      stranger_.empty() ? "" : fmt::format("; the last caller turned away: {}", stranger_);
  return {error_code::unavailable,
          fmt::format("rank {} is not connected within {} ms to {}{}", rank_, patience.count(), who,
                      last),
          "transport", true};
}

}  // namespace troupe::transport
