// The built binary with some command, running until the test ends it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {

class running_program {
 public:
  explicit running_program(std::vector<std::string> words) {
    words.insert(words.begin(), TROUPE_BINARY);
    const int out = ::open((folder_.path() / "out").c_str(), O_WRONLY | O_CREAT, 0600);
    const int err = ::open((folder_.path() / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    auto child = base::spawn({.program = TROUPE_BINARY,
                              .arguments = std::move(words),
                              .environment = {},
                              .descriptors = {{.from = out, .as = 1}, {.from = err, .as = 2}},
                              .null_input = true});
    ::close(out);
    ::close(err);
    if (child) child_ = *std::move(child);
  }
  running_program(const running_program&) = delete;
  running_program& operator=(const running_program&) = delete;
  ~running_program() {
    if (child_.id != 0) static_cast<void>(end());
  }

  // JSON lines on stdout so far that have this event.
  [[nodiscard]] std::vector<json> events(const std::string& name) const {
    std::vector<json> found;
    std::ifstream lines(folder_.path() / "out");
    for (std::string line; std::getline(lines, line);) {
      const json event = json::parse(line, nullptr, false);
      if (event.is_object() && event.value("event", "") == name) found.push_back(event);
    }
    return found;
  }
  [[nodiscard]] std::string url() const {
    if (!wait_until([&] { return !events("listening").empty(); })) return {};
    return events("listening").front()["url"];
  }
  [[nodiscard]] std::string output() const {
    return cli::test::read_file(folder_.path() / "out") +
           cli::test::read_file(folder_.path() / "err");
  }
  [[nodiscard]] double metric(const std::string& name) const {
    const auto page = net::http_fetch({.url = url() + "/metrics", .deadline = 5s});
    const std::size_t at = page ? page->body.find("\n" + name) : std::string::npos;
    if (at == std::string::npos) return -1.0;
    return std::stod(page->body.substr(page->body.find(' ', page->body.find('}', at))));
  }
  void send_signal(int number) const { ::kill(child_.id, number); }
  // Its exit code after SIGTERM.
  int end() {
    send_signal(SIGTERM);
    int status = 0;
    while (::waitpid(child_.id, &status, 0) < 0 && errno == EINTR) {
    }
    child_.id = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  const cli::test::temporary_folder folder_;
  base::child_process child_;
};

}  // namespace troupe::gang_test
