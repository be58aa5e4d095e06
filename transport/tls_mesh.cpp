#include "transport/tls_mesh.hpp"

#include "base/check.hpp"
#include "transport/arguments.hpp"

#include <fmt/format.h>

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace troupe::transport {
namespace {

constexpr std::size_t record_bytes = 16384;  // the most that TLS seals at once

using steady = std::chrono::steady_clock;

short events_of(base::tls_progress progress) noexcept {
  return progress == base::tls_progress::want_write ? POLLOUT : POLLIN;
}

}  // namespace

tls_mesh::tls_mesh(parts made) : parts_(std::move(made)), first_record_(record_bytes) {
  for (const tls_link& link : parts_.links) {
    polled_.push_back(
        {.fd = link.session ? link.session->descriptor() : -1, .events = 0, .revents = 0});
  }
  polled_.push_back({.fd = parts_.stop->descriptor(), .events = POLLIN, .revents = 0});
}

tls_mesh::~tls_mesh() {
  for (const tls_link& link : parts_.links) {
    if (link.session) parts_.stop->forget(link.session->descriptor());
  }
}

base::result<void> tls_mesh::send(message_tag tag, outgoing message) {
  return run(tag, start(tag, message), {});
}

base::result<void> tls_mesh::receive(message_tag tag, incoming message) {
  return run(tag, {}, start(message));
}

base::result<void> tls_mesh::exchange(message_tag tag, outgoing out, incoming in) {
  return run(tag, start(tag, out), start(in));
}

tls_mesh::sending tls_mesh::start(message_tag tag, outgoing message) {
  TROUPE_CHECK(message.to != rank() && message.to >= 0 && message.to < size());
  const std::span<std::byte> record = first_record_;
  tls_wire::encode(
      {.epoch_number = parts_.seat.epoch.number, .size = message.bytes.size(), .tag = tag},
      record.first<tls_wire::header_bytes>());
  const std::size_t taken = std::min(message.bytes.size(), record.size() - tls_wire::header_bytes);
  std::copy_n(message.bytes.begin(), taken, record.begin() + tls_wire::header_bytes);
  return {.to = message.to,
          .first = record.first(tls_wire::header_bytes + taken),
          .rest = message.bytes.subspan(taken)};
}

tls_mesh::receiving tls_mesh::start(incoming message) {
  TROUPE_CHECK(message.from != rank() && message.from >= 0 && message.from < size());
  return {.from = message.from, .head = header_, .body = message.bytes};
}

// Moves both until nothing more goes, looks again for a short while, then sleeps.
base::result<void> tls_mesh::run(message_tag tag, sending out, receiving in) {
  auto idle_since = steady::time_point::max();
  for (;;) {
    if (parts_.stop->raised()) return fail_aborted();
    TROUPE_TRY(sent, advance(out));
    TROUPE_TRY(received, advance(in, tag));
    if (out.done() && in.done()) return {};
    if (sent || received) {
      idle_since = steady::time_point::max();
      continue;
    }
    const auto now = steady::now();
    idle_since = std::min(idle_since, now);
    if (now - idle_since < parts_.spin) {
      ::sched_yield();  // more ranks than cores: the one waited for may need this one
      continue;
    }
    TROUPE_TRY_VOID(wait(out, in));
    idle_since = steady::time_point::max();
  }
}

base::result<bool> tls_mesh::advance(sending& out) {
  out.waits_for = 0;
  if (out.done()) return false;
  std::span<const std::byte>& part = out.first.empty() ? out.rest : out.first;
  const auto wrote = session(out.to).write(part);
  if (!wrote) return lost(out.to, wrote.error().message);
  if (wrote->progress == base::tls_progress::closed) return lost(out.to, "it closed");
  if (wrote->progress != base::tls_progress::done) {
    out.waits_for = events_of(wrote->progress);
    return false;
  }
  part = part.subspan(wrote->bytes);
  parts_.counters->bytes_sent.fetch_add(wrote->bytes, std::memory_order_relaxed);
  return true;
}

base::result<bool> tls_mesh::advance(receiving& in, message_tag expected) {
  in.waits_for = 0;
  if (in.done()) return false;
  const bool in_header = !in.head.empty();
  std::span<std::byte>& part = in_header ? in.head : in.body;
  const auto got = session(in.from).read(part);
  if (!got) return lost(in.from, got.error().message);
  if (got->progress == base::tls_progress::closed) return lost(in.from, "it closed");
  if (got->progress != base::tls_progress::done) {
    in.waits_for = events_of(got->progress);
    return false;
  }
  part = part.subspan(got->bytes);
  parts_.counters->bytes_received.fetch_add(got->bytes, std::memory_order_relaxed);
  if (in_header && in.head.empty()) TROUPE_TRY_VOID(check_header(in, expected));
  return true;
}

// Before a byte of the body is read: a size that differs is never believed.
base::result<void> tls_mesh::check_header(const receiving& in, message_tag expected) {
  const tls_wire::header came = tls_wire::decode_header(header_);
  if (came.epoch_number != parts_.seat.epoch.number) {
    parts_.counters->stale_messages.fetch_add(1, std::memory_order_relaxed);
    return base::fail(base::error_code::invalid_argument, "transport",
                      fmt::format("{} sends for epoch number {} on a connection of number {}",
                                  link(in.from).peer, came.epoch_number, parts_.seat.epoch.number));
  }
  if (came.tag == expected && came.size == in.body.size()) return {};
  return base::fail(
      base::error_code::invalid_argument, "transport",
      fmt::format("ranks out of step: rank {} sent {} bytes of {} number {} round {} group {}, "
                  "rank {} expects {} bytes of {} number {} round {} group {}",
                  in.from, came.size, to_string(came.tag.kind), came.tag.number, came.tag.round,
                  came.tag.group, rank(), in.body.size(), to_string(expected.kind), expected.number,
                  expected.round, expected.group));
}

// Sleeps until one of the two can go on, the data plane is aborted, or any connection is reset: a
// rank that has aborted ends this wait too, even where it is for a third.
base::result<void> tls_mesh::wait(const sending& out, const receiving& in) {
  const auto ask = [&](int peer, short events) {
    if (peer >= 0) polled_[static_cast<std::size_t>(peer)].events |= events;
  };
  for (pollfd& one : polled_) one.events = 0;
  polled_.back().events = POLLIN;
  ask(out.to, out.waits_for);
  ask(in.from, in.waits_for);
  while (::poll(polled_.data(), polled_.size(), -1) < 0) {
    if (errno == EINTR) continue;
    return base::fail(base::error_code::internal, "transport",
                      "poll: " + std::system_category().message(errno));
  }
  if (parts_.stop->raised()) return fail_aborted();
  for (int peer = 0; peer < size(); ++peer) {
    const pollfd& one = polled_[static_cast<std::size_t>(peer)];
    // Where this rank reads or writes, that tells more.
    if (peer == (out.done() ? -1 : out.to) || peer == (in.done() ? -1 : in.from)) continue;
    if ((one.revents & POLLERR) != 0) return lost(peer, "the connection was reset");
  }
  return {};
}

tl::unexpected<base::error> tls_mesh::lost(int peer, const std::string& how) const {
  if (parts_.stop->raised()) return fail_aborted();
  return base::fail(
      base::error_code::unavailable, "transport",
      fmt::format("{} is gone: {}", parts_.links[static_cast<std::size_t>(peer)].peer, how), true);
}

}  // namespace troupe::transport
