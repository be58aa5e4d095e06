#include "transport/tls_call.hpp"

#include "base/socket.hpp"

#include <fmt/format.h>

#include <poll.h>

#include <algorithm>
#include <utility>

namespace troupe::transport {
namespace {

using base::error_code;
using base::tls_progress;
using tls_wire::verdict;

tl::unexpected<base::error> fail(error_code code, std::string message, bool retryable = false) {
  return base::fail(code, "transport", std::move(message), retryable);
}

}  // namespace

tls_call tls_call::dialled(int rank, tls_wire::endpoint at, base::fd socket) {
  tls_call made;
  made.dialled_ = true;
  made.rank_ = rank;
  made.at_ = stage::reach;
  made.peer_ = fmt::format("rank {} at {}", rank, tls_wire::to_string(at));
  made.where_ = std::move(at);
  made.socket_ = std::move(socket);
  made.waits_for_ = POLLOUT;
  return made;
}

base::result<tls_call> tls_call::accepted(const tls_desk& desk, base::fd socket) {
  tls_call made;
  made.peer_ = base::peer_of(socket.get());
  TROUPE_TRY(session, desk.server.attach(std::move(socket)));
  made.session_ = std::move(session);
  made.waits_for_ = POLLIN;
  return made;
}

int tls_call::descriptor() const noexcept {
  return session_ ? session_->descriptor() : socket_.get();
}

tls_link tls_call::take_link() {
  return {.session = std::exchange(session_, std::nullopt),
          .peer = dialled_ ? peer_ : fmt::format("rank {} at {}", rank_, peer_)};
}

base::result<void> tls_call::advance(const tls_desk& desk) {
  while (at_ != stage::seated) {
    const auto moved = step(desk);
    if (!moved) {
      const base::error& why = moved.error();
      return fail(why.code, fmt::format("{}: {}", peer_, why.message), why.retryable);
    }
    if (!*moved) return {};
  }
  return {};
}

base::result<bool> tls_call::step(const tls_desk& desk) {
  const auto then = [](base::result<bool> heard, auto weigh) -> base::result<bool> {
    return heard && *heard ? weigh() : heard;
  };
  switch (at_) {
    case stage::reach:
      return reach(desk);
    case stage::shake:
      return shake(desk);
    case stage::tell:
      return tell();
    case stage::hear_greeting:
      return then(hear(incoming_), [&] { return weigh_greeting(desk); });
    case stage::hear_verdict:
      return then(hear(std::span(incoming_).first(tls_wire::verdict_bytes)),
                  [&] { return weigh_verdict(desk); });
    case stage::seated:
      break;
  }
  return false;
}

bool tls_call::pause(tls_progress progress) noexcept {
  waits_for_ = progress == tls_progress::want_write ? POLLOUT : POLLIN;
  return false;
}

base::result<bool> tls_call::reach(const tls_desk& desk) {
  pollfd polled{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&polled, 1, 0) <= 0) return false;
  TROUPE_TRY_VOID(base::outcome_of(socket_, where_.host, where_.port));
  TROUPE_TRY(session, desk.client.attach(std::move(socket_)));
  session_ = std::move(session);
  at_ = stage::shake;
  return true;
}

base::result<bool> tls_call::shake(const tls_desk& desk) {
  TROUPE_TRY(progress, session_->handshake());
  if (progress == tls_progress::closed) {
    return fail(error_code::unavailable, "it closed during the handshake", true);
  }
  if (progress != tls_progress::done) return pause(progress);
  if (dialled_) {
    at_ = stage::hear_greeting;
    return true;
  }
  const auto greeting = tls_wire::encode({.seat = desk.seat});
  outgoing_.assign(greeting.begin(), greeting.end());
  at_ = stage::tell;
  return true;
}

base::result<bool> tls_call::tell() {
  while (!outgoing_.empty()) {
    TROUPE_TRY(wrote, session_->write(outgoing_));
    if (wrote.progress == tls_progress::closed) {
      return fail(error_code::unavailable, "it closed while it was greeted", true);
    }
    if (wrote.progress != tls_progress::done) return pause(wrote.progress);
    outgoing_.erase(outgoing_.begin(),
                    outgoing_.begin() + static_cast<std::ptrdiff_t>(wrote.bytes));
  }
  if (!refusal_.empty()) {
    return fail(is_stale() ? error_code::unavailable : error_code::invalid_argument, refusal_);
  }
  at_ = dialled_ ? stage::hear_verdict : told_verdict_ ? stage::seated : stage::hear_greeting;
  return true;
}

base::result<bool> tls_call::hear(std::span<std::byte> into) {
  while (heard_ < into.size()) {
    TROUPE_TRY(got, session_->read(into.subspan(heard_)));
    if (got.progress == tls_progress::closed) {
      return fail(error_code::unavailable, "it closed before it was seated", true);
    }
    if (got.progress != tls_progress::done) return pause(got.progress);
    heard_ += got.bytes;
  }
  heard_ = 0;
  return true;
}

base::result<bool> tls_call::weigh_greeting(const tls_desk& desk) {
  TROUPE_TRY(theirs, tls_wire::decode_greeting(incoming_));
  verdict_ = tls_wire::judge(theirs, desk.seat);
  if (verdict_ == verdict::welcome) {
    const int rank = theirs.seat.rank;
    const bool expected = dialled_ ? rank == rank_ : rank > desk.seat.rank;
    if (!expected) {
      verdict_ = verdict::wrong_rank;
    } else if (!dialled_ && desk.is_taken(rank)) {
      verdict_ = verdict::rank_is_here;
    }
    if (verdict_ == verdict::welcome) rank_ = rank;
  }
  if (verdict_ != verdict::welcome) {
    refusal_ = fmt::format("refused: {}", tls_wire::reason(verdict_, theirs, desk.seat));
  }
  // A dialling rank answers with its own greeting even to a wrong one: both sides then know why.
  if (dialled_) {
    const auto greeting = tls_wire::encode({.seat = desk.seat});
    outgoing_.assign(greeting.begin(), greeting.end());
  } else {
    const auto said = tls_wire::encode(verdict_);
    outgoing_.assign(said.begin(), said.end());
    told_verdict_ = true;
  }
  at_ = stage::tell;
  return true;
}

base::result<bool> tls_call::weigh_verdict(const tls_desk& desk) {
  TROUPE_TRY(said, tls_wire::decode_verdict(std::span(incoming_).first<tls_wire::verdict_bytes>()));
  if (said == verdict::welcome) {
    at_ = stage::seated;
    return true;
  }
  return fail(error_code::unavailable,
              fmt::format("it refuses rank {}: {}", desk.seat.rank, tls_wire::to_string(said)));
}

}  // namespace troupe::transport
