#include "actors/control_probe.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>

#include "base/clock.hpp"
#include "base/socket.hpp"

namespace troupe::actors {

namespace {

struct probe {
  base::tls_session session;
  std::string peer;
  base::steady_time until;

  [[nodiscard]] base::result<void> wait(base::tls_progress wants) const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - base::steady_now());
    pollfd socket{
        .fd = session.descriptor(),
        .events = static_cast<short>(wants == base::tls_progress::want_write ? POLLOUT : POLLIN),
        .revents = 0};
    if (left.count() > 0 && ::poll(&socket, 1, static_cast<int>(left.count())) != 0) return {};
    return base::fail(base::error_code::deadline_exceeded, "actors",
                      fmt::format("{} accepts connections and says nothing", peer), true);
  }

  [[nodiscard]] tl::unexpected<base::error> closed() const {
    return base::fail(base::error_code::unauthenticated, "actors",
                      fmt::format("{} closes the connection: it is no control plane or of another "
                                  "gang; check --gang-tls on both nodes",
                                  peer),
                      true);
  }

  [[nodiscard]] base::result<void> shake_hands() {
    while (true) {
      TROUPE_TRY(progress, session.handshake());
      if (progress == base::tls_progress::done) return {};
      if (progress == base::tls_progress::closed) return closed();
      TROUPE_TRY_VOID(wait(progress));
    }
  }

  // TLS 1.3 tells a client only now that its certificate was not taken.
  [[nodiscard]] base::result<void> hear() {
    std::array<std::byte, 1> first{};
    while (true) {
      TROUPE_TRY(got, session.read(first));
      if (got.progress == base::tls_progress::done) return {};
      if (got.progress == base::tls_progress::closed) return closed();
      TROUPE_TRY_VOID(wait(got.progress));
    }
  }
};

}  // namespace

base::result<void> probe_member(const base::tls_context& context, const std::string& numeric_host,
                                std::uint16_t port, std::chrono::milliseconds patience) {
  const base::steady_time until = base::steady_now() + patience;
  TROUPE_TRY(socket, base::connect_to(numeric_host, port, patience));
  TROUPE_TRY(session, context.attach(std::move(socket)));
  probe asks{.session = std::move(session),
             .peer = fmt::format("{}:{}", numeric_host, port),
             .until = until};
  TROUPE_TRY_VOID(asks.shake_hands());
  return asks.hear();
}

}  // namespace troupe::actors
