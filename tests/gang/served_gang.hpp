// `troupe serve demo` as a real gang of processes, and what can be done to it.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/gang/running_program.hpp"

namespace troupe::gang_test {

// How long a loss may stay unnoticed. The promise is 1 s; a machine shared with others gets ten
// times that, or what TROUPE_NOTICE_MAX_MS says.
inline std::chrono::milliseconds notice_max() {
  const char* const text = std::getenv("TROUPE_NOTICE_MAX_MS");
  return std::chrono::milliseconds(text == nullptr ? 10'000 : std::atoi(text));
}

// Processes of this machine whose command line has all of these words in a row.
inline std::vector<pid_t> processes_with(const std::vector<std::string>& words) {
  std::string wanted;
  for (const std::string& word : words) wanted += word + '\0';
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (cli::test::read_file(entry.path() / "cmdline").find(wanted) != std::string::npos) {
      found.push_back(static_cast<pid_t>(std::stol(name)));
    }
  }
  return found;
}

// Not one that has ended and waits for its new parent to look.
inline bool is_alive(pid_t process) {
  const std::string stat = cli::test::read_file("/proc/" + std::to_string(process) + "/stat");
  const auto name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.substr(name_end, 3) != ") Z";
}

class served_gang : public running_program {
 public:
  // `prefix`: a program and its words that run the binary elsewhere.
  explicit served_gang(const std::vector<std::string>& more, const std::string& model = "demo",
                       const std::vector<std::string>& prefix = {},
                       const std::string& binary = TROUPE_BINARY)
      : running_program(
            [&](const std::filesystem::path& state_dir) {
              std::vector<std::string> words = prefix;
              for (const std::string& word :
                   {binary, std::string("serve"), model, std::string("--port"), std::string("0"),
                    std::string("--state-dir"), state_dir.string()}) {
                words.push_back(word);
              }
              words.insert(words.end(), more.begin(), more.end());
              if (!prefix.empty()) words.insert(words.begin(), "env");
              return words;
            },
            prefix.empty() ? binary : "/usr/bin/env") {}

  [[nodiscard]] const std::filesystem::path& state_dir() const { return folder(); }
  [[nodiscard]] pid_t supervisor() const { return id(); }
  // Of this gang; 0: not there at the moment.
  [[nodiscard]] pid_t process_of(int rank) const {
    const auto found =
        processes_with({"--node-rank", std::to_string(rank), "--parent", std::to_string(id())});
    return found.empty() ? 0 : found.front();
  }
  // False: there is no such process at the moment. (0 would be this process's own group.)
  [[nodiscard]] bool send_signal(int rank, int number) const {
    const pid_t process = process_of(rank);
    return process > 0 && ::kill(process, number) == 0;
  }
  [[nodiscard]] std::vector<pid_t> ranks() const {
    return processes_with({"--parent", std::to_string(id())});
  }

  // The status of GET; 0: no answer.
  [[nodiscard]] int status(const std::string& path) {
    const auto reply = net::http_fetch({.url = url() + path, .deadline = 5s});
    return reply ? reply->status : 0;
  }
  [[nodiscard]] bool ready_within(std::chrono::milliseconds patience = 60s) {
    return wait_until([&] { return status("/ready") == 200; }, patience);
  }
  [[nodiscard]] json gang() {
    const auto reply = net::http_fetch({.url = url() + "/troupe/gang", .deadline = 5s});
    return reply ? json::parse(reply->body, nullptr, false) : json();
  }
};

inline json completion_body(int max_tokens) {
  return {{"model", "demo"},    {"prompt", "A gang is"}, {"max_tokens", max_tokens},
          {"temperature", 0.0}, {"ignore_eos", true},    {"stream", true}};
}

// A streamed completion, read to its end on a thread of its own.
class open_stream {
 public:
  open_stream(const std::string& url, json body, std::string key = {})
      : key_(std::move(key)), thread_([this, url, body = std::move(body)] { run(url, body); }) {}
  open_stream(const open_stream&) = delete;
  open_stream& operator=(const open_stream&) = delete;
  ~open_stream() {
    stop_.request_stop();
    if (thread_.joinable()) thread_.join();
  }

  [[nodiscard]] int pieces() const { return pieces_; }
  void cancel() { stop_.request_stop(); }
  void join() { thread_.join(); }
  // After join():
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool done() const { return done_; }  // "[DONE]" came
  [[nodiscard]] bool failed() const { return !error_.empty(); }
  [[nodiscard]] const std::string& error() const { return error_; }
  [[nodiscard]] const std::string& error_code() const { return error_code_; }  // of an event
  [[nodiscard]] int errors() const { return errors_; }                         // events
  [[nodiscard]] steady::time_point ended() const { return ended_; }

 private:
  void run(const std::string& url, const json& body) {
    const auto reply = net::http_stream(
        {.method = "POST",
         .url = url + "/v1/completions",
         .headers = {{"content-type", "application/json"}, {"authorization", "Bearer " + key_}},
         .body = body.dump(),
         .deadline = 120s,
         .stop = stop_.get_token()},
        {.head = {}, .piece = [this](std::string_view bytes) { return take(bytes); }});
    if (!reply && error_.empty()) error_ = reply.error().message;
    if (reply && reply->status != 200) error_ = "status " + std::to_string(reply->status);
    ended_ = steady::now();
  }

  bool take(std::string_view bytes) {
    unread_ += bytes;
    for (std::size_t end = 0; (end = unread_.find("\n\n")) != std::string::npos;) {
      const std::string event = unread_.substr(0, end);
      unread_.erase(0, end + 2);
      if (!event.starts_with("data: ")) continue;
      if (event == "data: [DONE]") {
        done_ = true;
        continue;
      }
      const json data = json::parse(event.substr(6), nullptr, false);
      if (data.contains("error")) {
        error_ = data["error"].value("message", "?");
        error_code_ = data["error"].value("code", "?");
        ++errors_;
      }
      if (data.contains("choices") && !data["choices"].empty()) {
        text_ += data["choices"][0].value("text", "");
        ++pieces_;
      }
    }
    return true;
  }

  const std::string key_;
  std::stop_source stop_;
  std::atomic<int> pieces_{0};
  std::string unread_;
  std::string text_;
  std::string error_;
  std::string error_code_;
  int errors_ = 0;
  bool done_ = false;
  steady::time_point ended_;
  std::thread thread_;
};

}  // namespace troupe::gang_test
