#include "cli/own_address.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <array>
#include <cstdio>
#include <vector>

#include "base/clock.hpp"
#include "base/signals.hpp"
#include "base/socket.hpp"
#include "supervisor/resolver.hpp"

namespace troupe::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds ask_again{500};
constexpr std::chrono::seconds say_again{10};

// False: a signal came, and is taken. `descriptor`: ends the wait when it is readable; negative:
// none.
bool wait_for(base::signal_source& signals, int descriptor, milliseconds patience) {
  std::array<pollfd, 2> watched{{{.fd = signals.descriptor(), .events = POLLIN, .revents = 0},
                                 {.fd = descriptor, .events = POLLIN, .revents = 0}}};
  ::poll(watched.data(), watched.size(), static_cast<int>(patience.count()));
  return !signals.next();
}

tl::unexpected<base::error> stopped(const std::string& leader) {
  return base::fail(base::error_code::cancelled, "cli",
                    fmt::format("stopped while waiting for --leader {}", leader));
}

base::result<std::string> ask(const std::string& leader, supervisor::resolver& names,
                              base::signal_source& signals) {
  TROUPE_TRY_VOID(names.start(leader));
  if (!wait_for(signals, names.descriptor(), supervisor::resolver::patience)) {
    return stopped(leader);
  }
  TROUPE_TRY(addresses, names.answer());
  if (addresses.empty()) {
    return base::fail(base::error_code::not_found, "cli",
                      fmt::format("host '{}' has no address", leader));
  }
  return base::local_address_towards(addresses.front());
}

}  // namespace

base::result<std::string> own_address_towards(const std::string& leader,
                                              std::chrono::seconds patience) {
  TROUPE_TRY(signals, base::signal_source::take({SIGTERM, SIGINT}));
  supervisor::resolver names;
  const auto begin = base::steady_now();
  auto said = begin;
  std::string why;
  for (;;) {
    auto own = ask(leader, names, signals);
    if (own || own.error().code == base::error_code::cancelled) return own;
    const auto now = base::steady_now();
    if (now - begin >= patience) {
      return base::fail(base::error_code::deadline_exceeded, "cli",
                        fmt::format("--leader {} was not found in {} s: {}", leader,
                                    patience.count(), own.error().message));
    }
    if (own.error().message != why || now - said >= say_again) {
      said = now;
      why = own.error().message;
      std::fprintf(stderr, "troupe: waits for the leader's name: %s\n", why.c_str());
    }
    if (!wait_for(signals, -1, ask_again)) return stopped(leader);
  }
}

}  // namespace troupe::cli
