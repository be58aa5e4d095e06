#include "net/client_socket.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace troupe::net {
namespace {

// Bytes the kernel holds for a client beyond what is on its way: the rest piles up here, where it
// is counted. A token is some 200 bytes.
constexpr int kernel_unsent_bytes = 128 << 10;

void set_option(int socket, int level, int option, int value) {
  ::setsockopt(socket, level, option, &value, sizeof value);  // an improvement, not a condition
}

void prepare_socket(int socket, const http_limits& limits) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kernel_unsent_bytes);
  // A client that vanished without a word: noticed by what it does not acknowledge, or by probes.
  const auto patience_ms = std::clamp<std::int64_t>(limits.write_patience.count() * 2, 1, 600'000);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(patience_ms));
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void describe(client_socket& client, const sockaddr_storage& from) {
  std::array<char, INET6_ADDRSTRLEN> text = {};
  if (from.ss_family == AF_INET) {
    sockaddr_in v4 = {};
    std::memcpy(&v4, &from, sizeof v4);
    ::inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
    client.loopback = (ntohl(v4.sin_addr.s_addr) >> 24U) == 127;
  } else if (from.ss_family == AF_INET6) {
    sockaddr_in6 v6 = {};
    std::memcpy(&v6, &from, sizeof v6);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {  // an IPv4 client of a socket that takes both
      ::inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text.data(), text.size());
      client.loopback = v6.sin6_addr.s6_addr[12] == 127;
    } else {
      ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
      client.loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    }
  }
  client.address = text.data();
}

}  // namespace

client_socket accept_client(int listening, const http_limits& limits) {
  client_socket client;
  sockaddr_storage from = {};
  socklen_t length = sizeof from;
  client.descriptor = base::fd(::accept4(listening, reinterpret_cast<sockaddr*>(&from), &length,
                                         SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client.descriptor) {
    client.exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return client;
  }
  prepare_socket(client.descriptor.get(), limits);
  describe(client, from);
  return client;
}

}  // namespace troupe::net
