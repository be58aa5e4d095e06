#include "base/channel.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/check.hpp"

namespace troupe::base {
namespace {

struct control_area {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(channel::descriptors_max * sizeof(int))> bytes{};
};

std::string text_of(int number) { return std::system_category().message(number); }

// Takes ownership of all descriptors beside a datagram, wanted or not.
std::vector<fd> descriptors_of(msghdr& header) {
  std::vector<fd> all;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t at = 0; at < count; ++at) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + at * sizeof(int), sizeof(int));
      all.emplace_back(number);
    }
  }
  return all;
}

}  // namespace

result<std::pair<channel, channel>> channel::make_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0) {
    return fail(error_code::resource_exhausted, "base",
                fmt::format("cannot make a socket pair: {}", text_of(errno)), true);
  }
  return std::pair(channel(fd(ends[0])), channel(fd(ends[1])));
}

result<bool> channel::send(std::span<const std::uint8_t> bytes,
                           std::span<const int> descriptors) const {
  TROUPE_CHECK(!bytes.empty() && descriptors.size() <= descriptors_max);
  iovec piece{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  control_area control;
  if (!descriptors.empty()) {
    header.msg_control = control.bytes.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    if (errno == EINTR) continue;
    // ETOOMANYREFS: too many descriptors are on their way to peers that do not read.
    if (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS) return false;
    if (errno == EMSGSIZE) {
      return fail(error_code::resource_exhausted, "base",
                  fmt::format("a datagram of {} bytes is too large for the socket", bytes.size()));
    }
    return fail(error_code::unavailable, "base",
                fmt::format("the other end of a channel is gone: {}", text_of(errno)));
  }
}

result<channel::datagram> channel::receive(std::size_t bytes_max) const {
  datagram got;
  got.bytes.resize(bytes_max);
  iovec piece{got.bytes.data(), got.bytes.size()};
  control_area control;
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control.bytes.data();
  header.msg_controllen = control.bytes.size();
  ssize_t length = 0;
  do {
    length = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0) {
    if (errno == EAGAIN) return datagram{};
    return fail(error_code::unavailable, "base",
                fmt::format("the other end of a channel is gone: {}", text_of(errno)));
  }
  got.descriptors = descriptors_of(header);
  if ((header.msg_flags & MSG_TRUNC) != 0) {
    return fail(error_code::invalid_argument, "base",
                fmt::format("a datagram has more than {} bytes", bytes_max));
  }
  if ((header.msg_flags & MSG_CTRUNC) != 0) {
    return fail(error_code::invalid_argument, "base",
                fmt::format("more than {} descriptors came with a datagram, or this process has no "
                            "numbers left for them",
                            descriptors_max));
  }
  got.bytes.resize(static_cast<std::size_t>(length));
  got.kind = length == 0 ? datagram::what::closed : datagram::what::bytes;
  return got;
}

}  // namespace troupe::base
