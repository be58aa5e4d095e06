#include "net/connection.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "net/http_syntax.hpp"

namespace troupe::net {
namespace {

// Requests behind the one being answered: one whole header fits, a body waits in the kernel.
constexpr std::size_t pipelined_bytes_max = 16U << 10;  // or one read: scratch
// Answers behind which the next pipelined request waits.
constexpr std::size_t out_bytes_pause = 64U << 10;
// A buffer that grew larger than this is given back once it is empty.
constexpr std::size_t kept_buffer_bytes_max = 16U << 10;
// How long the client may go on sending after the last answer: closing at once would reset the
// connection and could take the answer with it (RFC 9112 section 9.6).
constexpr std::chrono::milliseconds linger_patience{1'000};
constexpr std::size_t linger_bytes_max = 8U << 20;

void drop_if_large(std::string& buffer) {
  if (buffer.capacity() > kept_buffer_bytes_max) buffer = {};
}

}  // namespace

connection::connection(server_context& context, client from, time_point now)
    : context_(context),
      client_(std::move(from)),
      parser_(context.options.limits),
      since_(now),
      progress_(now) {}

connection::~connection() { context_.bodies_bytes -= counted_; }

bool connection::wants_read() const noexcept {
  if (end_of_input_) return false;
  switch (phase_) {
    case phase::waiting:
    case phase::reading:
    case phase::answering:
      return in_.size() < pipelined_bytes_max;
    case phase::lingering:
      return true;
    default:
      return false;
  }
}

void connection::on_readable(time_point now) {
  if (!wants_read()) return;
  std::string& scratch = context_.scratch;
  // What is parsed at once may come in larger pieces than what has to wait.
  const bool waits = phase_ == phase::answering || !in_.empty();
  const std::size_t room = waits ? pipelined_bytes_max - in_.size() : scratch.size();
  const ssize_t n = ::recv(client_.descriptor, scratch.data(), room, MSG_DONTWAIT);
  if (n < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) close_now(false);
    return;
  }
  if (n == 0) {
    end_of_input_ = true;
    advance(now);
    return;
  }
  if (phase_ == phase::lingering) {
    discarded_ += static_cast<std::size_t>(n);
    if (discarded_ > linger_bytes_max) close_now(true);
    return;
  }
  in_.append(scratch, 0, static_cast<std::size_t>(n));
  advance(now);
}

void connection::on_writable(time_point now) {
  if (closed()) return;
  flush(now);
  advance(now);
}

void connection::on_changed(time_point now) {
  if (!closed()) advance(now);
}

// Everything that can be done without waiting. Not entered again by what it calls.
void connection::advance(time_point now) {
  if (std::exchange(inside_, true)) return;
  do {
    bool more = true;
    while (more && !closed()) {
      more = may_parse() && read_request(now);
      if (phase_ == phase::answering) more = collect_answer(now);
    }
    if (!closed()) flush(now);
  } while (may_parse());
  if (!closed() && unsent() == 0 && phase_ == phase::finishing) on_flushed(now);
  if (!closed() && end_of_input_) on_end_of_input();
  inside_ = false;
}

bool connection::may_parse() const noexcept {
  return (phase_ == phase::waiting || phase_ == phase::reading) && !in_.empty() &&
         unsent() <= out_bytes_pause;
}

// True when a request was handed over.
bool connection::read_request(time_point now) {
  if (phase_ == phase::waiting) {
    phase_ = phase::reading;
    fresh_ = body_begun_ = false;
    since_ = now;
  }
  in_.erase(0, parser_.feed(in_));
  if (in_.empty()) drop_if_large(in_);
  count_body();
  if (parser_.refused()) {
    refuse(parser_.status(), parser_.what(), now);
    return false;
  }
  if (context_.bodies_bytes > context_.options.limits.bodies_bytes_max) {
    refuse(503, "too many bytes of requests are being read: try again later", now);
    return false;
  }
  if (parser_.complete()) {
    dispatch(now);
    return true;
  }
  if (parser_.head_complete() && !std::exchange(body_begun_, true)) {
    since_ = now;
    if (parser_.continue_expected() && parser_.body_bytes() == 0 && in_.empty()) {
      append("HTTP/1.1 100 Continue\r\n\r\n", now);
    }
  }
  return false;
}

void connection::count_body() {
  const std::size_t held = parser_.body_bytes();
  context_.bodies_bytes += held;
  context_.bodies_bytes -= std::exchange(counted_, held);
}

void connection::dispatch(time_point now) {
  head_only_ = parser_.head_only();
  http_1_0_ = parser_.http_1_0();
  answer_closes_ = parser_.close();
  answer_ = std::make_shared<answer>(
      context_.gate, answer_terms{.connection = client_.id,
                                  .head_only = head_only_,
                                  .http_1_0 = http_1_0_,
                                  .close = answer_closes_,
                                  .unsent_bytes_max = context_.options.limits.unsent_bytes_max});
  http_request request = parser_.take();
  count_body();
  request.peer = client_.address;
  request.loopback = client_.loopback;
  phase_ = phase::answering;
  since_ = now;
  context_.totals.requests.fetch_add(1, std::memory_order_relaxed);
  try {
    context_.options.handler(std::move(request), make_response(answer_));
  } catch (...) {  // NOLINT(bugprone-empty-catch): letting go of the response is the answer
  }
}

// True when the answer is complete and the next request may come.
bool connection::collect_answer(time_point now) {
  const bool idle = unsent() == 0;
  const answer::portion portion = answer_->take(out_, sent_);
  if (portion.overflow) {
    context_.totals.cut_slow.fetch_add(1, std::memory_order_relaxed);
    close_now(true);
    return false;
  }
  if (idle && unsent() > 0) progress_ = now;
  if (portion.cut) {
    // Without chunks only a reset tells the client that this is not the end.
    finish(http_1_0_ ? ending::reset : ending::close);
    return false;
  }
  if (portion.abandoned) {
    answer_closes_ = true;
    append_error(500, "the request ended without an answer");
  }
  if (!portion.complete && !portion.abandoned) return false;
  answer_.reset();
  if (answer_closes_ || context_.gate->stopping()) {
    finish(ending::linger);
    return false;
  }
  phase_ = phase::waiting;
  since_ = now;
  return true;
}

void connection::refuse(int status, std::string_view what, time_point now) {
  context_.totals.refused.fetch_add(1, std::memory_order_relaxed);
  head_only_ = parser_.head_only();
  if (unsent() == 0) progress_ = now;
  append_error(status, what);
  finish(ending::linger);
}

void connection::turn_away(time_point now) {
  refuse(503, "too many connections are open: try again later", now);
  advance(now);
}

void connection::append_error(int status, std::string_view what) {
  std::pair<std::string, std::string> content;
  if (context_.options.error_body) {
    content = context_.options.error_body(status, what);
  } else {
    content = {"text/plain", fmt::format("{} {}: {}\n", status, reason_phrase(status), what)};
  }
  std::vector<header_field> fields = {{"content-type", content.first}};
  if (status == 503) fields.emplace_back("retry-after", "1");
  out_ += format_answer_head({.status = status,
                              .fields = &fields,
                              .framing = body_framing::length,
                              .length = content.second.size(),
                              .close = true,
                              .date = context_.gate->date()});
  if (!head_only_) out_ += content.second;
}

void connection::append(std::string_view bytes, time_point now) {
  if (unsent() == 0) progress_ = now;
  out_ += bytes;
}

void connection::flush(time_point now) {
  while (unsent() > 0) {
    const ssize_t n =
        ::send(client_.descriptor, out_.data() + sent_, unsent(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) close_now(false);
      break;
    }
    sent_ += static_cast<std::size_t>(n);
    progress_ = now;
    context_.totals.bytes_sent.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
  }
  if (unsent() == 0) {
    out_.clear();
    sent_ = 0;
    drop_if_large(out_);
  } else if (sent_ > out_bytes_pause) {
    out_.erase(0, std::exchange(sent_, 0));
  }
  if (answer_) answer_->set_outgoing(unsent());
}

void connection::finish(ending how) {
  phase_ = phase::finishing;
  ending_ = how;
  in_ = {};
  answer_.reset();
}

void connection::on_flushed(time_point now) {
  if (ending_ != ending::linger) {
    close_now(ending_ == ending::reset);
    return;
  }
  ::shutdown(client_.descriptor, SHUT_WR);
  phase_ = phase::lingering;
  since_ = now;
}

void connection::on_end_of_input() {
  switch (phase_) {
    case phase::finishing:
      break;  // what is complete is still sent
    case phase::waiting:
      if (unsent() == 0) {
        close_now(false);
      } else if (in_.empty()) {
        finish(ending::close);
      }
      break;
    default:
      close_now(false);
  }
}

void connection::on_tick(time_point now) {
  if (closed()) return;
  const http_limits& limits = context_.options.limits;
  if (unsent() > 0 && now - progress_ > limits.write_patience) {
    context_.totals.cut_slow.fetch_add(1, std::memory_order_relaxed);
    close_now(true);
    return;
  }
  if (phase_ == phase::reading) {
    const auto patience = body_begun_ ? limits.body_patience : limits.header_patience;
    if (now - since_ > patience) {
      refuse(408, body_begun_ ? "the body did not come in time" : "the header did not come in time",
             now);
      advance(now);
    }
    return;
  }
  check_silence(now);
}

void connection::check_silence(time_point now) {
  const http_limits& limits = context_.options.limits;
  if (phase_ == phase::waiting && unsent() == 0) {
    if (now - since_ > (fresh_ ? limits.header_patience : limits.idle_patience)) close_now(false);
  } else if (phase_ == phase::lingering && now - since_ > linger_patience) {
    close_now(false);
  } else if (phase_ == phase::answering && !wants_read()) {
    // Nothing is read while the pipeline is full; the kernel still knows that the client closed.
    pollfd state = {.fd = client_.descriptor, .events = POLLRDHUP, .revents = 0};
    if (::poll(&state, 1, 0) > 0) close_now(false);
  }
}

void connection::drain(time_point now) {
  if (closed()) return;
  if (phase_ == phase::waiting && in_.empty()) {
    if (unsent() == 0) {
      close_now(false);
    } else {
      finish(ending::linger);
      advance(now);
    }
  }
}

void connection::cut() { close_now(true); }

// A reset gives the kernel's buffers back at once and cannot be taken for an orderly end.
void connection::close_now(bool reset) {
  if (closed()) return;
  phase_ = phase::closed;
  if (reset) {
    const linger at_once = {.l_onoff = 1, .l_linger = 0};
    ::setsockopt(client_.descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  out_ = {};
  in_ = {};
  sent_ = 0;
  const std::shared_ptr<answer> lost = std::exchange(answer_, nullptr);
  if (lost) lost->lose();
}

}  // namespace troupe::net
