// Many open streams on one port: all of them end whole, and none costs much memory.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/fd.hpp"
#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

// One connection of many that a single thread reads.
struct stream_socket {
  base::fd socket;
  std::string unsent;
  std::string answer;
  bool ended = false;
};

base::fd connect_to(std::uint16_t port) {
  base::fd made(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int outcome = ::connect(made.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  EXPECT_TRUE(outcome == 0 || errno == EINPROGRESS) << errno;
  return made;
}

void move_bytes(stream_socket& of, short happened) {
  if ((happened & POLLOUT) != 0 && !of.unsent.empty()) {
    const ssize_t sent = ::send(of.socket.get(), of.unsent.data(), of.unsent.size(), MSG_NOSIGNAL);
    if (sent > 0) of.unsent.erase(0, static_cast<std::size_t>(sent));
  }
  if ((happened & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  std::array<char, 16384> bytes;
  const ssize_t got = ::recv(of.socket.get(), bytes.data(), bytes.size(), 0);
  if (got > 0) of.answer.append(bytes.data(), static_cast<std::size_t>(got));
  if (got == 0 || (got < 0 && errno != EAGAIN)) of.ended = true;
}

// Until all have ended.
bool read_all(std::vector<stream_socket>& streams, std::chrono::seconds patience,
              const std::function<void()>& meanwhile) {
  const auto end = steady::now() + patience;
  for (std::size_t open = streams.size(); open > 0;) {
    if (steady::now() > end) return false;
    std::vector<pollfd> watched;
    std::vector<stream_socket*> of;
    for (stream_socket& stream : streams) {
      if (stream.ended) continue;
      const short wanted = stream.unsent.empty() ? POLLIN : POLLIN | POLLOUT;
      watched.push_back({stream.socket.get(), wanted, 0});
      of.push_back(&stream);
    }
    open = watched.size();
    ::poll(watched.data(), watched.size(), 100);
    for (std::size_t i = 0; i < watched.size(); ++i) move_bytes(*of[i], watched[i].revents);
    meanwhile();
  }
  return true;
}

double pss_bytes(pid_t process) {
  std::ifstream lines("/proc/" + std::to_string(process) + "/smaps_rollup");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("Pss:")) return 1024.0 * std::stod(line.substr(4));
  }
  return 0.0;
}

void check_streams(std::size_t count) {
  rlimit files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  const rlim_t needed = count + 256;
  if (files.rlim_max < needed) GTEST_SKIP() << "only " << files.rlim_max << " files may be open";
  files.rlim_cur = std::max(files.rlim_cur, needed);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &files), 0);
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const pid_t leader = gang.process_of(0);
  const double before = pss_bytes(leader);
  json body = completion_body(20);
  body["prompt"] = {400, 401, 402};
  const std::string text = body.dump();
  const std::string request =
      "POST /v1/completions HTTP/1.1\r\nhost: test\r\nconnection: close\r\n"
      "content-type: application/json\r\ncontent-length: " +
      std::to_string(text.size()) + "\r\n\r\n" + text;
  const auto port =
      static_cast<std::uint16_t>(std::stoi(gang.url().substr(gang.url().rfind(':') + 1)));
  std::vector<stream_socket> streams;
  for (std::size_t i = 0; i < count; ++i) {
    streams.push_back({.socket = connect_to(port), .unsent = request, .answer = {}});
  }
  double peak = before;
  int turn = 0;
  const bool ended = read_all(streams, 300s, [&] {
    if (++turn % 20 == 0) peak = std::max(peak, pss_bytes(leader));
  });
  EXPECT_TRUE(ended) << "some streams never end";
  std::size_t whole = 0;
  for (const stream_socket& stream : streams) {
    const bool done = stream.answer.starts_with("HTTP/1.1 200") &&
                      stream.answer.find("data: [DONE]") != std::string::npos;
    whole += done ? 1 : 0;
    if (!done) ADD_FAILURE() << stream.answer.substr(0, 400);
    if (!done) break;
  }
  EXPECT_EQ(whole, count);
  std::printf("%zu streams: %.1f MiB more in the leader at most\n", count,
              (peak - before) / 1048576.0);
#ifndef __SANITIZE_ADDRESS__  // which keeps what is freed
  // A connection, a request, its events: some 30 KiB each as measured; the caches of a step too.
  EXPECT_LT(peak - before, 64e6 + 100e3 * static_cast<double>(count));
#endif
}

TEST(ManyStreams, AllEndWhole) { check_streams(300); }

// Label slow.
TEST(ManyStreamsFull, TwoThousandEndWhole) { check_streams(2000); }

}  // namespace
}  // namespace troupe::gang_test
