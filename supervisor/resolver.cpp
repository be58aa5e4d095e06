#include "supervisor/resolver.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/socket.hpp"

namespace troupe::supervisor {
namespace {

constexpr std::size_t answer_bytes_max = 4096;  // one piece of a pipe, PIPE_BUF
constexpr std::size_t addresses_max = 16;

bool is_numeric(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  return ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
}

// In the child: only this, then _exit(). "=" and addresses, or "!" and a line that says why not.
[[noreturn]] void look_up(const std::string& host, const base::fd& pipe, pid_t parent) {
  std::string text = "!no answer";
  if (base::die_with_parent(parent)) {
    const auto found = base::resolve(host);
    text = found ? "=" : "!" + found.error().message;
    if (found) {
      for (const std::string& one : *found) text += one + "\n";
    }
  }
  const std::string_view piece = std::string_view(text).substr(0, answer_bytes_max);
  const bool whole = ::write(pipe.get(), piece.data(), piece.size()) >= 0;
  ::_exit(whole ? 0 : 1);
}

}  // namespace

base::result<void> resolver::start(const std::string& host) {
  stop();
  host_ = host;
  due_ = base::steady_now() + patience;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return base::fail(base::error_code::resource_exhausted, "supervisor",
                      fmt::format("cannot make a pipe: {}", std::system_category().message(errno)),
                      true);
  }
  pipe_ = base::fd(ends[0]);
  const base::fd theirs(ends[1]);
  if (is_numeric(host)) {
    const std::string text = "=" + host + "\n";
    static_cast<void>(!::write(theirs.get(), text.data(), text.size()));
    return {};
  }
  // The supervisor has one thread, so a fork may do more than exec.
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) look_up(host, theirs, parent);
  if (child < 0) {
    stop();
    return base::fail(
        base::error_code::resource_exhausted, "supervisor",
        fmt::format("cannot start a process: {}", std::system_category().message(errno)), true);
  }
  child_ = child;
  return {};
}

std::optional<base::steady_time> resolver::due() const {
  return pipe_ ? std::optional(due_) : std::nullopt;
}

std::optional<pid_t> resolver::child() const {
  return child_ > 0 ? std::optional(child_) : std::nullopt;
}

base::result<std::vector<std::string>> resolver::answer() {
  std::string text(answer_bytes_max, '\0');
  const ssize_t length = ::read(pipe_.get(), text.data(), text.size());
  const bool late = length < 0;
  text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  stop();
  if (late || text.empty()) {
    return base::fail(
        base::error_code::deadline_exceeded, "supervisor",
        fmt::format("no answer for host '{}' within {} ms: check the DNS", host_, patience.count()),
        true);
  }
  if (text.front() != '=') {
    return base::fail(base::error_code::not_found, "supervisor", text.substr(1), true);
  }
  std::vector<std::string> all;
  std::string_view rest = std::string_view(text).substr(1);
  while (!rest.empty() && all.size() < addresses_max) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    all.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  return all;
}

void resolver::stop() {
  pipe_.reset();
  if (child_ <= 0) return;
  ::kill(child_, SIGKILL);
  ::waitpid(child_, nullptr, 0);
  child_ = 0;
}

}  // namespace troupe::supervisor
