// Clients that ask for streams all the time, and what became of what they asked for.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {

// Clients that ask one after the other until they are told to stop.
class asking_clients {
 public:
  // `key`: of the API; none where it is open.
  asking_clients(std::string url, int clients, std::string key = {})
      : url_(std::move(url)), key_(std::move(key)) {
    for (int i = 0; i < clients; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  asking_clients(const asking_clients&) = delete;
  asking_clients& operator=(const asking_clients&) = delete;
  ~asking_clients() { stop(); }

  void stop() {
    stop_ = true;
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  [[nodiscard]] int completed() const { return completed_; }
  // After stop(): requests that failed without a token, and with one.
  [[nodiscard]] const std::vector<std::string>& lost() const { return lost_; }
  [[nodiscard]] int cut() const { return cut_; }
  // Texts by prompt: the same prompt has one answer, whoever gave it.
  [[nodiscard]] const std::map<int, std::set<std::string>>& texts() const { return texts_; }

 private:
  void run(int client) {
    for (int turn = 0; !stop_; ++turn) {
      const int prompt = (client * 7 + turn) % 5;
      json body = completion_body(20 + prompt * 30);
      body["prompt"] = "A gang of " + std::to_string(prompt) + " ranks is";
      open_stream stream(url_, body, key_);
      stream.join();
      const std::lock_guard lock(mutex_);
      if (stream.done() && !stream.failed()) {
        ++completed_;
        texts_[prompt].insert(stream.text());
      } else if (stream.pieces() == 0) {
        lost_.push_back(stream.error());
      } else {
        ++cut_;
      }
    }
  }

  const std::string url_;
  const std::string key_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::atomic<int> completed_{0};
  int cut_ = 0;
  std::vector<std::string> lost_;
  std::map<int, std::set<std::string>> texts_;
  std::vector<std::thread> threads_;
};

}  // namespace troupe::gang_test
