// A name server of one host (a network namespace): what its programs ask gets what the test wants.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"

namespace troupe::gang_test {

// Source: RFC 1035, section 4.
class name_server {
 public:
  enum class answer : std::uint8_t { none, unknown_name, no_address, address };

  // `space`: the namespace's name, which finds this as its only server (ip-netns(8), /etc/netns).
  name_server(const std::string& space, const std::string& address)
      : folder_("/etc/netns/" + space) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "resolv.conf") << "nameserver 127.0.0.1\n";
    point_to(address);
    // Only the thread that enters the namespace is in it; its socket stays there.
    std::thread([&] { socket_ = base::fd(listen_in("/run/netns/" + space)); }).join();
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
  }
  name_server(const name_server&) = delete;
  name_server& operator=(const name_server&) = delete;
  ~name_server() {
    thread_ = {};
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
    std::filesystem::remove(folder_.parent_path(), ignored);  // where it is empty
  }

  [[nodiscard]] bool works() const { return static_cast<bool>(socket_); }
  void give(answer what) { answer_ = what; }
  void point_to(const std::string& address) {
    in_addr made{};
    ::inet_pton(AF_INET, address.c_str(), &made);
    address_ = made.s_addr;
  }
  [[nodiscard]] int asked() const { return asked_; }

 private:
  static constexpr std::size_t header_bytes = 12;

  static int listen_in(const std::string& space) {
    const base::fd there(::open(space.c_str(), O_RDONLY | O_CLOEXEC));
    if (!there || ::setns(there.get(), CLONE_NEWNET) != 0) return -1;
    base::fd made(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(53);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool bound =
        made && ::bind(made.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) == 0;
    return bound ? made.release() : -1;
  }

  void serve(const std::stop_token& stop) {
    std::array<std::uint8_t, 512> bytes{};
    while (!stop.stop_requested()) {
      pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&readable, 1, 20) <= 0) continue;
      sockaddr_storage from{};
      socklen_t size = sizeof(from);
      const ssize_t length = ::recvfrom(socket_.get(), bytes.data(), bytes.size(), 0,
                                        reinterpret_cast<sockaddr*>(&from), &size);
      if (length <= static_cast<ssize_t>(header_bytes)) continue;
      ++asked_;
      const auto reply = reply_to({bytes.begin(), bytes.begin() + length});
      if (reply.empty()) continue;
      static_cast<void>(::sendto(socket_.get(), reply.data(), reply.size(), 0,
                                 reinterpret_cast<const sockaddr*>(&from), size));
    }
  }

  // One question, as the C library asks it.
  [[nodiscard]] std::vector<std::uint8_t> reply_to(std::vector<std::uint8_t> query) const {
    const answer wanted = answer_;
    if (wanted == answer::none) return {};
    std::size_t at = header_bytes;
    while (at < query.size() && query[at] != 0) at += query[at] + std::size_t{1};
    if (at + 5 > query.size()) return {};
    const bool asks_for_ipv4 = query[at + 1] == 0 && query[at + 2] == 1;
    query.resize(at + 5);  // without what is additional
    const bool gives = wanted == answer::address && asks_for_ipv4;
    query[2] = 0x81;  // a response, recursion wanted
    query[3] = wanted == answer::unknown_name ? 0x83 : 0x80;
    query[7] = gives ? 1 : 0;
    query[11] = 0;
    if (gives) {  // the name of the question, A, IN, no time to live, 4 bytes
      query.insert(query.end(), {0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4});
      const auto bytes = std::bit_cast<std::array<std::uint8_t, 4>>(address_.load());
      query.insert(query.end(), bytes.begin(), bytes.end());
    }
    return query;
  }

  const std::filesystem::path folder_;
  std::atomic<in_addr_t> address_{0};  // in network byte order
  base::fd socket_;
  std::atomic<answer> answer_{answer::none};
  std::atomic<int> asked_{0};
  std::jthread thread_;
};

}  // namespace troupe::gang_test
