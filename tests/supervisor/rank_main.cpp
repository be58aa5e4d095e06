// A rank as the supervisor's tests need one: it keeps to the channel's protocol, writes down what
// happens to it, and misbehaves as its arguments say.
//
//   supervisor_rank --node-rank 1 parent=123 record=FILE [stop_at_ping wedge exit_at_ping=3 ...]
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/channel.hpp"
#include "base/clock.hpp"
#include "base/memory_file.hpp"
#include "base/process.hpp"
#include "base/tls.hpp"
#include "base/vitals.hpp"
#include "schemas/codec.hpp"
#include "supervisor/supervisor.hpp"

namespace {

using namespace troupe;
using numbers = supervisor::rank_descriptors;

class words {
 public:
  words(int count, char** values) {
    for (int at = 1; at < count; ++at) {
      const std::string word = values[at];
      const std::size_t equals = word.find('=');
      if (word == "--node-rank" && at + 1 < count) {
        all_["rank"] = values[++at];
      } else {
        all_[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
      }
    }
  }
  [[nodiscard]] bool has(const std::string& name) const { return all_.contains(name); }
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto at = all_.find(name);
    return at == all_.end() ? std::string() : at->second;
  }
  [[nodiscard]] int number(const std::string& name) const {
    int value = 0;
    const std::string word = text(name);
    std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
  }

 private:
  std::map<std::string, std::string> all_;
};

class rank {
 public:
  explicit rank(const words& arguments)
      : words_(arguments), number_(words_.number("rank")), channel_(base::fd(numbers::channel)) {}

  int run();

 private:
  void record(const std::string& what) const;
  void say(const schemas::supervisor_message& message) const {
    static_cast<void>(channel_.send(schemas::encode(message)));
  }
  [[nodiscard]] int starts_of(int rank_or_any) const;
  [[nodiscard]] int earlier_starts() const { return starts_of(number_); }
  void begin();
  void misbehave();
  void work(bool ticking);
  void serve_http();
  int follow();
  int on(const schemas::supervisor_message& message, const std::vector<base::fd>& beside);
  int on_ping(std::uint64_t number);

  words words_;
  int number_;
  base::channel channel_;
  std::vector<std::thread> threads_;
};

// One line, in one piece: several ranks write to the file.
void rank::record(const std::string& what) const {
  const base::fd file(
      ::open(words_.text("record").c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  const std::string line =
      fmt::format("{} {} {} {}\n", base::steady_ns(), number_, ::getpid(), what);
  if (::write(file.get(), line.data(), line.size()) < 0) std::_Exit(99);
}

// Of one rank, or of all with -1.
int rank::starts_of(int rank_or_any) const {
  std::ifstream file(words_.text("record"));
  int count = 0;
  for (std::string line; std::getline(file, line);) {
    const bool counts =
        rank_or_any < 0 || line.find(fmt::format(" {} ", rank_or_any)) == line.find(' ');
    if (counts && line.find(" started") != std::string::npos) ++count;
  }
  return count;
}

// A compute thread, which ticks as it should or spins without a tick.
void rank::work(bool ticking) {
  threads_.emplace_back([this, ticking] {
    const base::fd file(numbers::vitals);
    auto page =
        base::memory_map::of(file, sizeof(base::rank_vitals), base::memory_access::read_write);
    if (!page) std::_Exit(98);
    auto& vitals = *static_cast<base::rank_vitals*>(page->data());
    vitals.thread_id.store(static_cast<std::int32_t>(::syscall(SYS_gettid)));
    vitals.begin(base::activity::working);
    vitals.tick();
    record(ticking ? "busy" : "wedged");
    for (;;) {
      const std::uint64_t until = base::steady_ns() + 5'000'000;
      while (base::steady_ns() < until) {
      }
      if (ticking) vitals.tick();
    }
  });
}

void rank::serve_http() {
  threads_.emplace_back([] {
    for (;;) {
      pollfd ready{numbers::listening, POLLIN, 0};
      if (::poll(&ready, 1, -1) <= 0) continue;
      const base::fd client(::accept4(numbers::listening, nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) continue;
      std::array<char, 1024> request{};
      if (::recv(client.get(), request.data(), request.size(), 0) <= 0) continue;
      const std::string answer =
          "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nrank 0";
      ::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
      ::shutdown(client.get(), SHUT_WR);
    }
  });
}

void rank::misbehave() {
  if (words_.has("say_garbage")) {
    const std::vector<std::uint8_t> garbage(1000, 0xA5);
    for (int count = 0; count < 50; ++count) static_cast<void>(channel_.send(garbage));
  }
  if (words_.has("say_wrong")) {
    say({schemas::heartbeat{}});
    say({schemas::announce{"no JSON"}});
    say({schemas::segment_wanted{{1, 1}, 1'000'000}});
    say({schemas::pong{~0ULL}});
  }
  if (words_.has("orphans")) {
    // Grandchildren whose parent is gone at once, of which nobody but the reaper knows.
    for (int count = 0; count < 5; ++count) {
      const pid_t child = ::fork();
      if (child == 0) {
        if (::fork() == 0) ::_exit(7);
        ::_exit(0);
      }
      siginfo_t info{};
      ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED);
    }
    record("orphaned");
  }
}

void rank::begin() {
  if (words_.has("announce")) say({schemas::announce{"{\"event\":\"ready\"}"}});
  if (words_.has("listens")) say({schemas::control_plane_listens{"127.0.0.1", 8472}});
  if (words_.has("serving")) {
    say({schemas::phase_changed{schemas::rank_phase::serving,
                                {7, static_cast<std::uint64_t>(words_.number("serving"))},
                                "all is well"}});
  }
  if (words_.has("want_segment")) {
    say({schemas::segment_wanted{{7, 1}, words_.number("want_segment")}});
  }
  if (words_.has("give_up")) {
    say({schemas::give_up{words_.number("give_up"), "this model is refused"}});
  }
  misbehave();
  if (words_.has("busy")) work(true);
  if (words_.has("wedge") && earlier_starts() == 1) work(false);
  if (words_.has("http")) serve_http();
}

int rank::on_ping(std::uint64_t number) {
  say({schemas::pong{number}});
  if (words_.has("stop_at_ping") && earlier_starts() == 1) ::raise(SIGSTOP);
  const bool all_started = starts_of(-1) >= words_.number("starts");
  if (words_.has("exit_at_ping") && all_started) return words_.number("exit_at_ping");
  return -1;
}

// The exit code, -1 to go on.
int rank::on(const schemas::supervisor_message& message, const std::vector<base::fd>& beside) {
  if (const auto* ping = std::get_if<schemas::ping>(&message.body)) return on_ping(ping->number);
  if (const auto* lost = std::get_if<schemas::rank_lost>(&message.body)) {
    record(fmt::format("lost {} {} {}", lost->rank.value, lost->restarts, lost->cause));
  } else if (const auto* plane = std::get_if<schemas::control_plane_at>(&message.body)) {
    record(fmt::format("control_plane {}:{}", plane->host, plane->port));
  } else if (const auto* drain = std::get_if<schemas::drain>(&message.body)) {
    record(fmt::format("drain {}", drain->patience_ms));
    if (!words_.has("ignore_drain")) return words_.number("drain_code");
  } else if (const auto* segment = std::get_if<schemas::segment>(&message.body)) {
    struct stat status {};
    const bool came = beside.size() == 1 && ::fstat(beside.front().get(), &status) == 0;
    record(fmt::format("segment {} {} {}", segment->epoch.number, beside.size(),
                       came ? status.st_size : -1));
  }
  return -1;
}

int rank::follow() {
  for (;;) {
    pollfd ready{channel_.descriptor(), POLLIN, 0};
    if (::poll(&ready, 1, -1) < 0) continue;
    if (words_.has("mute")) {
      ::pause();
      continue;
    }
    const auto got = channel_.receive(schemas::wire_limits::supervisor_bytes_max);
    if (!got || got->kind == base::channel::datagram::what::closed) return 97;
    if (got->kind == base::channel::datagram::what::nothing) continue;
    const auto message = schemas::decode_supervisor_message(got->bytes);
    if (!message) return 96;
    if (const int code = on(*message, got->descriptors); code >= 0) return code;
  }
}

int rank::run() {
  if (!base::die_with_parent(words_.number("parent"))) return 95;
  if (words_.has("ignore_sigterm")) std::signal(SIGTERM, SIG_IGN);
  record(fmt::format("started {} {}", ::isatty(0) != 0 ? "tty" : "no-tty", ::getpgrp()));
  if (words_.has("credentials")) {
    const base::credential_files files{base::fd(numbers::certificate), base::fd(numbers::key),
                                       base::fd(numbers::authority)};
    record(base::unseal_credentials(files) ? "credentials good" : "credentials bad");
  }
  const int starts = earlier_starts();
  if (words_.has("crash") && starts <= words_.number("crash")) ::raise(SIGKILL);
  if (words_.has("exit")) return words_.number("exit");
  begin();
  return follow();
}

}  // namespace

int main(int count, char** values) {
  rank one{words(count, values)};
  const int code = one.run();
  std::_Exit(code);  // threads run on until here
}
