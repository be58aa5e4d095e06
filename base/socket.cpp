#include "base/socket.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

namespace troupe::base {
namespace {

// A host name of the DNS has at most 253 bytes, RFC 1035 section 2.3.4.
constexpr std::size_t host_bytes_max = 253;

using steady = std::chrono::steady_clock;

tl::unexpected<error> refuse(error_code code, std::string message) {
  const bool later = code == error_code::unavailable || code == error_code::deadline_exceeded ||
                     code == error_code::not_found;
  return fail(code, "base", std::move(message), later);
}

std::string text_of(int number) { return std::system_category().message(number); }

using address_list = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

result<address_list> look_up(const std::string& host, int flags) {
  if (host.empty() || host.size() > host_bytes_max || host.find('\0') != std::string::npos) {
    return refuse(error_code::invalid_argument,
                  fmt::format("a host name has 1 to {} bytes and no NUL; this one has {} bytes",
                              host_bytes_max, host.size()));
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int outcome = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (outcome == 0) return address_list(found, &freeaddrinfo);
  if ((flags & AI_NUMERICHOST) != 0) {
    return refuse(error_code::invalid_argument,
                  fmt::format("'{}' is not a numeric address; resolve the name first", host));
  }
  switch (outcome) {
    case EAI_NONAME:
    case EAI_NODATA:
      return refuse(error_code::not_found,
                    fmt::format("no address for host '{}': check the name, or wait until the DNS "
                                "has it",
                                host));
    case EAI_SYSTEM:
      return refuse(error_code::unavailable,
                    fmt::format("cannot look up host '{}': {}", host, text_of(errno)));
    default:
      return refuse(error_code::unavailable,
                    fmt::format("cannot look up host '{}': {}", host, gai_strerror(outcome)));
  }
}

void set_port(sockaddr* address, std::uint16_t port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  }
}

std::string numeric(const sockaddr* address, socklen_t bytes) {
  char host[NI_MAXHOST];
  const int outcome =
      getnameinfo(address, bytes, host, sizeof(host), nullptr, 0, NI_NUMERICHOST | NI_NUMERICSERV);
  return outcome == 0 ? host : "";
}

std::uint16_t port_of(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// Binds and listens on one address and port. Returns 0, or errno.
int try_listen(const addrinfo& at, int backlog, fd& into) {
  fd made(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) return errno;
  const int on = 1;
  const int off = 0;
  if (setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) return errno;
  if (at.ai_family == AF_INET6 &&
      setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) {
    return errno;
  }
  if (bind(made.get(), at.ai_addr, at.ai_addrlen) != 0) return errno;
  if (listen(made.get(), backlog) != 0) return errno;
  into = std::move(made);
  return 0;
}

result<listening_socket> describe(fd bound) {
  sockaddr_storage own{};
  socklen_t bytes = sizeof(own);
  if (getsockname(bound.get(), reinterpret_cast<sockaddr*>(&own), &bytes) != 0) {
    return refuse(error_code::internal, "getsockname: " + text_of(errno));
  }
  listening_socket made;
  made.descriptor = std::move(bound);
  made.host = numeric(reinterpret_cast<sockaddr*>(&own), bytes);
  made.port = port_of(own);
  return made;
}

tl::unexpected<error> no_listener(const listen_options& options, unsigned last, int reason) {
  const std::string where = host_and_port(options.host, options.port_first);
  const std::string range =
      last == options.port_first ? where : fmt::format("{} to {}", where, last);
  switch (reason) {
    case EADDRINUSE:
      return refuse(error_code::unavailable,
                    last == options.port_first
                        ? fmt::format("{} is in use: stop what listens there, or choose another "
                                      "port",
                                      range)
                        : fmt::format("all ports of {} are in use: widen the range", range));
    case EACCES:
    case EPERM:
      return refuse(error_code::permission_denied,
                    fmt::format("not allowed to listen on {}: choose a port from 1024 on", range));
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
      return refuse(error_code::invalid_argument,
                    fmt::format("{} is not an address of this host", options.host));
    default:
      return refuse(error_code::unavailable,
                    fmt::format("cannot listen on {}: {}", range, text_of(reason)));
  }
}

}  // namespace

result<listening_socket> listen_on(const listen_options& options) {
  TROUPE_TRY(addresses, look_up(options.host, AI_PASSIVE));
  const unsigned first = options.port_first;
  const unsigned last = options.port_last == 0 ? first : options.port_last;
  if (last < first) {
    return refuse(
        error_code::invalid_argument,
        fmt::format("port range {} to {}: the last port is below the first", first, last));
  }
  // The kernel may draw a port that another socket has bound and not yet listens on, which only
  // listen() finds: draw again.
  const unsigned draws = first == 0 ? 16 : 1;
  int reason = EADDRNOTAVAIL;
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    for (unsigned port = first; port <= last; ++port) {
      set_port(at->ai_addr, static_cast<std::uint16_t>(port));
      for (unsigned draw = 0; draw < draws; ++draw) {
        fd made;
        reason = try_listen(*at, options.backlog, made);
        if (reason == 0) return describe(std::move(made));
        if (reason != EADDRINUSE) break;
      }
      if (reason != EADDRINUSE && reason != EACCES) break;
    }
  }
  return no_listener(options, last, reason);
}

std::string host_and_port(std::string_view host, unsigned port) {
  return host.find(':') == std::string_view::npos ? fmt::format("{}:{}", host, port)
                                                  : fmt::format("[{}]:{}", host, port);
}

result<std::vector<std::string>> resolve(const std::string& host) {
  TROUPE_TRY(addresses, look_up(host, 0));
  std::vector<std::string> found;
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    std::string text = numeric(at->ai_addr, at->ai_addrlen);
    if (text.empty() || std::find(found.begin(), found.end(), text) != found.end()) continue;
    found.push_back(std::move(text));
  }
  if (found.empty()) {
    return refuse(error_code::not_found, fmt::format("no address for host '{}'", host));
  }
  return found;
}

result<fd> begin_connect(const std::string& numeric_host, std::uint16_t port) {
  TROUPE_TRY(addresses, look_up(numeric_host, AI_NUMERICHOST));
  const addrinfo& at = *addresses;
  set_port(at.ai_addr, port);
  fd made(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) {
    return refuse(
        errno == EMFILE || errno == ENFILE ? error_code::resource_exhausted
                                           : error_code::unavailable,
        fmt::format("no socket for {}: {}", host_and_port(numeric_host, port), text_of(errno)));
  }
  // What this process sends are whole messages that somebody waits for.
  const int on = 1;
  if (setsockopt(made.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
    return refuse(error_code::internal, "TCP_NODELAY: " + text_of(errno));
  }
  if (::connect(made.get(), at.ai_addr, at.ai_addrlen) != 0 && errno != EINPROGRESS &&
      errno != EINTR) {
    return refuse(
        error_code::unavailable,
        fmt::format("cannot connect to {}: {}", host_and_port(numeric_host, port), text_of(errno)));
  }
  return made;
}

result<void> outcome_of(const fd& connecting, const std::string& numeric_host, std::uint16_t port) {
  int reason = 0;
  socklen_t bytes = sizeof(reason);
  if (getsockopt(connecting.get(), SOL_SOCKET, SO_ERROR, &reason, &bytes) != 0) reason = errno;
  if (reason == 0) return {};
  return refuse(
      error_code::unavailable,
      fmt::format("cannot connect to {}: {}", host_and_port(numeric_host, port), text_of(reason)));
}

result<fd> connect_to(const std::string& numeric_host, std::uint16_t port,
                      std::chrono::milliseconds patience) {
  const auto deadline = steady::now() + patience;
  TROUPE_TRY(made, begin_connect(numeric_host, port));
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - steady::now()).count();
    pollfd waiting{.fd = made.get(), .events = POLLOUT, .revents = 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::clamp<long>(left, 0, 1 << 30)));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) {
      return refuse(error_code::internal, "poll: " + text_of(errno));
    }
    if (ready == 0 && steady::now() >= deadline) {
      return refuse(error_code::deadline_exceeded,
                    fmt::format("{} did not answer within {} ms", host_and_port(numeric_host, port),
                                patience.count()));
    }
  }
  TROUPE_TRY_VOID(outcome_of(made, numeric_host, port));
  return std::move(made);
}

std::string peer_of(int socket) {
  sockaddr_storage other{};
  socklen_t bytes = sizeof(other);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&other), &bytes) != 0 ||
      (other.ss_family != AF_INET && other.ss_family != AF_INET6)) {
    return "a peer that is gone";
  }
  return host_and_port(numeric(reinterpret_cast<sockaddr*>(&other), bytes), port_of(other));
}

result<std::string> local_address_towards(const std::string& numeric_host) {
  TROUPE_TRY(addresses, look_up(numeric_host, AI_NUMERICHOST));
  const addrinfo& at = *addresses;
  set_port(at.ai_addr, 9);  // any: connect() of a datagram socket only picks the route
  const fd made(::socket(at.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage own{};
  socklen_t bytes = sizeof(own);
  if (!made || ::connect(made.get(), at.ai_addr, at.ai_addrlen) != 0 ||
      getsockname(made.get(), reinterpret_cast<sockaddr*>(&own), &bytes) != 0) {
    return refuse(error_code::unavailable,
                  fmt::format("no route to {}: {}", numeric_host, text_of(errno)));
  }
  return numeric(reinterpret_cast<sockaddr*>(&own), bytes);
}

}  // namespace troupe::base
