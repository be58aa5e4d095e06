// The built binary with some command, running until the test ends it.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/process.hpp"
#include "net/http_client.hpp"
#include "tests/cli/program.hpp"

namespace troupe::gang_test {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;
using nlohmann::json;

// Looks again until it is true or the time is over. A test waits for a state, never for a time.
inline bool wait_until(const std::function<bool()>& holds,
                       std::chrono::milliseconds patience = 60s) {
  const auto end = steady::now() + patience;
  while (!holds()) {
    if (steady::now() >= end) return false;
    static_cast<void>(::poll(nullptr, 0, 2));  // looks again in 2 ms
  }
  return true;
}

class running_program {
 public:
  // The command line, its program's name first; told a folder that goes with the program.
  using command = std::function<std::vector<std::string>(const std::filesystem::path& folder)>;

  explicit running_program(const command& words, const std::string& program = TROUPE_BINARY) {
    const int out = ::open((folder().string() + "/out").c_str(), O_WRONLY | O_CREAT, 0600);
    const int err = ::open((folder().string() + "/err").c_str(), O_WRONLY | O_CREAT, 0600);
    auto child = base::spawn({.program = program,
                              .arguments = words(folder()),
                              .environment = {"TROUPE_ALLOW_NO_API_KEY=1"},
                              .descriptors = {{.from = out, .as = 1}, {.from = err, .as = 2}},
                              .null_input = true});
    ::close(out);
    ::close(err);
    if (child) child_ = *std::move(child);
  }
  // `troupe` with these words.
  explicit running_program(const std::vector<std::string>& words)
      : running_program([&words](const auto&) {
          std::vector<std::string> all = {"troupe"};
          all.insert(all.end(), words.begin(), words.end());
          return all;
        }) {}
  running_program(const running_program&) = delete;
  running_program& operator=(const running_program&) = delete;
  ~running_program() {
    if (child_.id == 0) return;
    ::kill(child_.id, SIGKILL);
    static_cast<void>(wait());
  }

  // JSON lines on stdout so far that have this event.
  [[nodiscard]] std::vector<json> events(const std::string& name) const {
    std::vector<json> found;
    std::ifstream lines(folder() / "out");
    for (std::string line; std::getline(lines, line);) {
      const json event = json::parse(line, nullptr, false);
      if (event.is_object() && event.value("event", "") == name) found.push_back(event);
    }
    return found;
  }
  [[nodiscard]] std::string log() const { return cli::test::read_file(folder() / "err"); }
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_.path(); }
  [[nodiscard]] std::string url() {
    if (url_.empty() && wait_until([&] { return !events("listening").empty(); })) {
      url_ = events("listening").front()["url"];
    }
    return url_;
  }
  // The sample that begins so: a name, or a name with its labels.
  [[nodiscard]] double metric(const std::string& name) {
    const auto reply = net::http_fetch({.url = url() + "/metrics", .deadline = 5s});
    if (!reply) return -1.0;
    std::istringstream lines(reply->body);
    for (std::string line; std::getline(lines, line);) {
      const bool named = line.starts_with(name + "{") || line.starts_with(name + " ");
      if (named) return std::stod(line.substr(line.rfind(' ')));
    }
    return -1.0;
  }

  [[nodiscard]] pid_t id() const { return child_.id; }
  // Its exit code, waiting for it; negative: the signal.
  int wait() {
    int status = 0;
    while (::waitpid(child_.id, &status, 0) < 0 && errno == EINTR) {
    }
    child_.id = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  // The same after SIGTERM.
  int end() {
    ::kill(child_.id, SIGTERM);
    return wait();
  }

 private:
  const cli::test::temporary_folder folder_;
  base::child_process child_;
  std::string url_;
};

}  // namespace troupe::gang_test
