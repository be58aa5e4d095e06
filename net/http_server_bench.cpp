// What a token costs on its way from write() to a client: 256 streams of 200 tokens, 2,000 open
// streams, and small requests on one connection. Server and clients share the machine; the server's
// cost is the CPU time of its own thread.
//
//   net_bench
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/socket.hpp"
#include "net/http_server.hpp"

namespace {

using namespace troupe;
using clock_type = std::chrono::steady_clock;

constexpr std::string_view request = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

double cpu_seconds() {
  timespec used = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

double seconds_since(clock_type::time_point begin) {
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// A server that keeps the responses it is given.
struct bench_server {
  bench_server() {
    auto socket = base::listen_on({.host = "127.0.0.1"});
    if (!socket) throw std::runtime_error(socket.error().message);
    listening = std::move(*socket);
    auto started = net::http_server::start(
        {.listening = listening.descriptor.get(),
         .handler = [this](const net::http_request& asked, std::shared_ptr<net::response> answer) {
           if (asked.target == "/hello") {
             answer->send(200, {{"content-type", "text/plain"}}, "hello");
             return;
           }
           const std::lock_guard lock(mutex);
           answers.push_back(std::move(answer));
         }});
    if (!started) throw std::runtime_error(started.error().message);
    server = std::move(*started);
  }
  double loop_cpu() const {
    std::promise<double> used;
    server->post([&] { used.set_value(cpu_seconds()); });
    return used.get_future().get();
  }
  std::size_t waiting() {
    const std::lock_guard lock(mutex);
    return answers.size();
  }

  base::listening_socket listening;
  std::mutex mutex;
  std::vector<std::shared_ptr<net::response>> answers;
  std::unique_ptr<net::http_server> server;
};

base::fd connect(const bench_server& bench) {
  auto socket = base::connect_to("127.0.0.1", bench.listening.port, std::chrono::seconds(10));
  if (!socket) throw std::runtime_error(socket.error().message);
  return std::move(*socket);
}

std::vector<base::fd> open_streams(bench_server& bench, std::size_t streams) {
  std::vector<base::fd> clients;
  for (std::size_t i = 0; i < streams; ++i) {
    clients.push_back(connect(bench));
    if (::send(clients.back().get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) break;
  }
  while (bench.waiting() < streams) std::this_thread::yield();
  for (const auto& answer : bench.answers) {
    answer->begin(200, {{"content-type", "text/event-stream"}});
  }
  return clients;
}

// Reads everything from all clients on a thread of its own until it is told to end.
class reader {
 public:
  explicit reader(const std::vector<base::fd>& clients) : poll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (const base::fd& client : clients) {
      epoll_event event = {};
      event.events = EPOLLIN;
      event.data.fd = client.get();
      ::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, client.get(), &event);
    }
    thread_ = std::thread([this] { read(); });
  }
  ~reader() {
    done_ = true;
    thread_.join();
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  void read() {
    std::vector<char> buffer(1U << 20);
    std::array<epoll_event, 256> events;
    while (!done_) {
      const int n = ::epoll_wait(poll_.get(), events.data(), events.size(), 10);
      for (int i = 0; i < n; ++i) {
        const ssize_t got = ::recv(events.at(static_cast<std::size_t>(i)).data.fd, buffer.data(),
                                   buffer.size(), MSG_DONTWAIT);
        if (got > 0) bytes_ += static_cast<std::size_t>(got);
      }
    }
  }

  base::fd poll_;
  std::atomic<bool> done_{false};
  std::atomic<std::size_t> bytes_{0};
  std::thread thread_;
};

// As an engine does it: one step gives every stream a token. `pause` stands for the step itself.
void bench_tokens(std::size_t streams, int steps, std::chrono::microseconds pause) {
  bench_server bench;
  const auto clients = open_streams(bench, streams);
  const reader sink(clients);
  const std::string event =
      "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","
      "\"created\":1800000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":"
      "{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
  const double loop_before = bench.loop_cpu();
  const double own_before = cpu_seconds();
  const auto sent_before = bench.server->counters().bytes_sent;
  const auto begin = clock_type::now();
  for (int step = 0; step < steps; ++step) {
    for (const auto& answer : bench.answers) answer->write(event);
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
  }
  const double own = cpu_seconds() - own_before;
  const std::size_t framed = event.size() + 6;  // "xx\r\n" and "\r\n"
  const std::size_t tokens = streams * static_cast<std::size_t>(steps);
  while (bench.server->counters().bytes_sent - sent_before < framed * tokens) {
    std::this_thread::yield();
  }
  const double wall = seconds_since(begin);
  const double loop = bench.loop_cpu() - loop_before;
  const auto count = static_cast<double>(tokens);
  fmt::print(
      "{} streams x {} tokens of {} B, {} us between steps: {:.0f} tokens/s; writer {:.2f} us, "
      "loop "
      "{:.2f} us of CPU a token = {:.0f} tokens/s of one core; {} cut\n",
      streams, steps, event.size(), pause.count(), count / wall, own / count * 1e6,
      loop / count * 1e6, count / (own + loop), bench.server->counters().cut_slow);
}

void bench_memory(std::size_t streams) {
  bench_server bench;
  const std::size_t before = resident_bytes();
  const auto clients = open_streams(bench, streams);
  for (const auto& answer : bench.answers) answer->write("data: token\n\n");
  while (bench.loop_cpu() < 0) {
  }
  const std::size_t after = resident_bytes();
  const double idle_before = bench.loop_cpu();
  const auto begin = clock_type::now();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  const double idle = (bench.loop_cpu() - idle_before) / seconds_since(begin);
  fmt::print("{} open streams: {:.1f} KiB each, {:.2f} % of a core while nothing happens\n",
             streams, static_cast<double>(after - before) / 1024 / static_cast<double>(streams),
             idle * 100);
}

void bench_requests(int requests) {
  bench_server bench;
  const base::fd client = connect(bench);
  const std::string asked = "GET /hello HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n";
  std::array<char, 4096> buffer;
  const double loop_before = bench.loop_cpu();
  const auto begin = clock_type::now();
  for (int i = 0; i < requests; ++i) {
    if (::send(client.get(), asked.data(), asked.size(), MSG_NOSIGNAL) < 0) return;
    pollfd state = {.fd = client.get(), .events = POLLIN, .revents = 0};
    ::poll(&state, 1, 10'000);
    if (::recv(client.get(), buffer.data(), buffer.size(), 0) <= 0) return;
  }
  const double wall = seconds_since(begin);
  const double loop = bench.loop_cpu() - loop_before;
  fmt::print("one connection, one request at a time: {:.1f} us round trip, loop {:.1f} us of CPU\n",
             wall / requests * 1e6, loop / requests * 1e6);
}

}  // namespace

int main() {
  rlimit files = {};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  try {
    bench_memory(2'000);  // first: nothing to reuse
    bench_tokens(256, 200, std::chrono::microseconds(0));
    bench_tokens(256, 200, std::chrono::milliseconds(10));
    bench_tokens(1, 2'000, std::chrono::microseconds(200));
    bench_requests(20'000);
  } catch (const std::exception& failed) {
    fmt::print(stderr, "net_bench: {}\n", failed.what());
    return 1;
  }
  return 0;
}
