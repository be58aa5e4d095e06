// A supervisor and its ranks as processes, started and watched by a test; all end with it.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/socket.hpp"

namespace troupe::supervisor::test {

// A promise of one second holds with ten times that on a machine that does much else.
inline constexpr std::chrono::milliseconds second_in_ci{10'000};
inline constexpr std::chrono::milliseconds patience{60'000};

// Looks again every few milliseconds; false when the time is over.
inline bool wait_until(const std::function<bool()>& holds,
                       std::chrono::milliseconds limit = patience) {
  const base::steady_time end = base::steady_now() + limit;
  while (!holds()) {
    if (base::steady_now() >= end) return false;
    ::poll(nullptr, 0, 2);
  }
  return true;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Neither running nor a zombie.
inline bool is_gone(pid_t process) {
  return process > 0 && ::kill(process, 0) != 0 && errno == ESRCH;
}

// To one process only: a start that was not seen must not become kill(-1).
inline bool send_to(pid_t process, int signal) {
  return process > 1 && ::kill(process, signal) == 0;
}

class temporary_folder {
 public:
  temporary_folder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "troupe-supervisor-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

// A line that a rank wrote down.
struct record {
  std::uint64_t at_ns = 0;
  int rank = 0;
  pid_t process = 0;
  std::string what;
};

class supervised {
 public:
  explicit supervised(std::vector<std::string> words, std::vector<std::string> launcher = {}) {
    std::vector<std::string> arguments = std::move(launcher);
    arguments.emplace_back(TROUPE_TEST_SUPERVISOR);
    arguments.push_back(std::string("rank_program=") + TROUPE_TEST_RANK);
    arguments.push_back("record=" + (folder / "record"));
    for (std::string& word : words) arguments.push_back(std::move(word));
    const base::fd out(::open((folder / "out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const base::fd err(
        ::open((folder / "err").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    auto started = base::spawn({.program = arguments.front(),
                                .arguments = arguments,
                                .descriptors = {{out.get(), 1}, {err.get(), 2}},
                                .null_input = true});
    if (started) child_.emplace(std::move(*started));
  }
  supervised(const supervised&) = delete;
  supervised& operator=(const supervised&) = delete;
  ~supervised() {
    if (!child_) return;
    base::send_signal(*child_, SIGKILL);
    exit_code();
  }

  void send(int signal) const { base::send_signal(*child_, signal); }
  [[nodiscard]] pid_t process() const { return child_->id; }

  // Waits for the end; minus the signal that ended it, -1000 when it does not.
  int exit_code() {
    std::optional<base::child_change> end;
    wait_until([&] {
      const auto change = base::change_of(*child_);
      if (change && *change && (*change)->kind != base::child_change::what::stopped) end = **change;
      return end.has_value() || !change;
    });
    if (!end) return -1000;
    child_.reset();
    return end->kind == base::child_change::what::exited ? end->number : -end->number;
  }

  [[nodiscard]] std::string out() const { return read_file(folder / "out"); }
  [[nodiscard]] std::string log() const { return read_file(folder / "err"); }
  [[nodiscard]] bool logged(const std::string& part) const {
    return log().find(part) != std::string::npos;
  }

  [[nodiscard]] std::vector<record> records(const std::string& what = "", int rank = -1) const {
    std::vector<record> all;
    std::istringstream file(read_file(folder / "record"));
    for (std::string line; std::getline(file, line);) {
      record one;
      std::istringstream words(line);
      words >> one.at_ns >> one.rank >> one.process >> std::ws;
      std::getline(words, one.what);
      if (one.what.starts_with(what) && (rank < 0 || one.rank == rank)) all.push_back(one);
    }
    return all;
  }
  // The count-th record (from 1) of that kind, once it is there.
  [[nodiscard]] std::optional<record> wait_for(const std::string& what, int rank = -1,
                                               std::size_t count = 1) const {
    std::optional<record> found;
    wait_until([&] {
      const auto all = records(what, rank);
      if (all.size() >= count) found = all[count - 1];
      return found.has_value();
    });
    return found;
  }
  [[nodiscard]] pid_t wait_for_start(int rank, std::size_t count = 1) const {
    const auto found = wait_for("started", rank, count);
    return found ? found->process : -1;
  }
  // Where the first line on stdout says that it listens; 0 if it does not.
  [[nodiscard]] std::uint16_t port() const {
    int port = 0;
    wait_until([&] {
      const std::string text = out();
      const std::size_t at = text.find("127.0.0.1:");
      if (at != std::string::npos && text.find('\n') != std::string::npos) {
        port = std::atoi(text.c_str() + at + 10);
      }
      return port != 0;
    });
    return static_cast<std::uint16_t>(port);
  }

  temporary_folder folder;

 private:
  std::optional<base::child_process> child_;
};

// The whole answer to a request, empty when there is none within a few seconds.
inline std::string ask_http(std::uint16_t port, const std::string& request,
                            std::chrono::milliseconds limit = second_in_ci) {
  auto socket = base::connect_to("127.0.0.1", port, limit);
  if (!socket) return "";
  ::send(socket->get(), request.data(), request.size(), MSG_NOSIGNAL);
  std::string text;
  const base::steady_time end = base::steady_now() + limit;
  while (base::steady_now() < end) {
    pollfd ready{socket->get(), POLLIN, 0};
    ::poll(&ready, 1, 50);
    std::array<char, 4096> piece{};
    const ssize_t length = ::recv(socket->get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (length > 0) text.append(piece.data(), static_cast<std::size_t>(length));
    if (length == 0 || (length < 0 && errno != EAGAIN)) break;
  }
  return text;
}
inline std::string get(std::uint16_t port, const std::string& path) {
  return ask_http(port, "GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n");
}

}  // namespace troupe::supervisor::test
