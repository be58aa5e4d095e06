// What stands in for the gang and for HTTP in the tests of serving/: both do nothing by themselves,
// so that a test decides what happens when.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/gang_service.hpp"
#include "net/http_server.hpp"

namespace troupe::serving::test {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr std::chrono::seconds patience{20};

// Takes requests and does with them what the test says.
class fake_gang final : public actors::gang_service {
 public:
  struct submitted {
    base::request_id id;
    actors::completion_request request;
    std::shared_ptr<actors::completion_sink> sink;
  };

  base::result<base::request_id> submit(actors::completion_request request,
                                        std::shared_ptr<actors::completion_sink> sink) override {
    const std::lock_guard lock(mutex_);
    if (refusal && requests_.size() >= admit_before_refusal) return tl::unexpected(*refusal);
    const base::request_id id{++last_id_};
    requests_.push_back({id, std::move(request), std::move(sink)});
    return id;
  }
  void cancel(base::request_id id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id.value);
  }
  void finish_choice(base::request_id id, std::uint32_t choice) override {
    const std::lock_guard lock(mutex_);
    finished_.insert({id.value, choice});
  }
  [[nodiscard]] actors::gang_status status() const override {
    const std::lock_guard lock(mutex_);
    return state;
  }

  [[nodiscard]] std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }
  [[nodiscard]] submitted at(std::size_t index) const {
    const std::lock_guard lock(mutex_);
    return requests_.at(index);
  }
  [[nodiscard]] bool cancelled(std::size_t index) const {
    const std::lock_guard lock(mutex_);
    return cancelled_.contains(requests_.at(index).id.value);
  }
  [[nodiscard]] bool finished(std::size_t index, std::uint32_t choice) const {
    const std::lock_guard lock(mutex_);
    return finished_.contains({requests_.at(index).id.value, choice});
  }

  std::optional<base::error> refusal;
  std::size_t admit_before_refusal = 0;
  actors::gang_status state;

 private:
  mutable std::mutex mutex_;
  std::deque<submitted> requests_;
  std::set<std::uint64_t> cancelled_;
  std::set<std::pair<std::uint64_t, std::uint32_t>> finished_;
  std::uint64_t last_id_ = 0;
};

// Keeps what is written to it.
class fake_response final : public net::response {
 public:
  void send(int code, std::vector<net::header_field> fields, std::string text) override {
    EXPECT_EQ(status, 0) << "answered twice";
    status = code;
    headers = std::move(fields);
    body = std::move(text);
    complete = true;
  }
  void begin(int code, std::vector<net::header_field> fields) override {
    EXPECT_EQ(status, 0) << "answered twice";
    status = code;
    headers = std::move(fields);
  }
  void write(std::string bytes) override {
    EXPECT_TRUE(status != 0 && !complete && !was_cut) << "written outside of a stream";
    body += bytes;
    ++writes;
  }
  void finish() override {
    EXPECT_TRUE(status != 0 && !complete && !was_cut);
    complete = true;
  }
  void cut() override {
    EXPECT_TRUE(status != 0 && !complete);
    was_cut = true;
  }
  void on_gone(std::function<void()> call) override { gone_call = std::move(call); }
  [[nodiscard]] bool gone() const noexcept override { return left; }
  [[nodiscard]] std::size_t unsent_bytes() const noexcept override { return 0; }

  void leave() {
    left = true;
    if (gone_call) std::exchange(gone_call, nullptr)();
  }
  [[nodiscard]] bool ended() const { return complete || was_cut; }
  [[nodiscard]] std::string header(std::string_view name) const {
    for (const auto& [field, value] : headers) {
      if (field == name) return value;
    }
    return {};
  }
  [[nodiscard]] json parsed() const { return json::parse(body); }
  // The events of a stream, [DONE] as a string.
  [[nodiscard]] std::vector<json> events() const {
    std::vector<json> out;
    std::size_t at = 0;
    while (at < body.size()) {
      const std::size_t end = body.find("\n\n", at);
      const std::string line = body.substr(at, end - at);
      EXPECT_NE(end, std::string::npos) << "an event without its end: " << line;
      EXPECT_TRUE(line.starts_with("data: ")) << line;
      EXPECT_EQ(line.find('\n'), std::string::npos) << line;
      const std::string data = line.substr(6);
      out.push_back(data == "[DONE]" ? json(data) : json::parse(data));
      if (end == std::string::npos) break;
      at = end + 2;
    }
    return out;
  }

  int status = 0;
  std::vector<net::header_field> headers;
  std::string body;
  std::size_t writes = 0;
  bool complete = false;
  bool was_cut = false;
  std::atomic<bool> left = false;
  std::function<void()> gone_call;
};

// The HTTP thread: calls wait until the test runs them.
class fake_http_thread {
 public:
  bool post(std::function<void()> call) {
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(std::move(call));
    }
    came_.notify_one();
    return true;
  }
  // Runs all that waits now.
  std::size_t run() {
    std::size_t done = 0;
    while (auto call = take(steady_clock::now())) {
      (*call)();
      ++done;
    }
    return done;
  }
  // Runs calls until something holds, which may come about on another thread; false after the
  // patience.
  bool run_until(const std::function<bool()>& holds) {
    const auto deadline = steady_clock::now() + patience;
    while (!holds()) {
      if (auto call = take(steady_clock::now() + std::chrono::milliseconds{2})) {
        (*call)();
      } else if (steady_clock::now() > deadline) {
        return false;
      }
    }
    return true;
  }

 private:
  std::optional<std::function<void()>> take(steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    if (!came_.wait_until(lock, deadline, [this] { return !calls_.empty(); })) return std::nullopt;
    auto call = std::move(calls_.front());
    calls_.pop_front();
    return call;
  }

  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::function<void()>> calls_;
};

}  // namespace troupe::serving::test
