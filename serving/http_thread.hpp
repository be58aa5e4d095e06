// The way to the HTTP thread, from any thread: open before the HTTP server exists, closed before it
// goes.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

namespace troupe::serving {

class http_thread {
 public:
  using call = std::function<void()>;

  // Runs what was posted so far, and what is posted from now on.
  void attach(std::function<bool(call)> post) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    post_ = std::move(post);
    for (call& waiting : waiting_) post_(std::move(waiting));
    waiting_.clear();
  }

  // Never runs the call before it returns. Dropped once closed.
  void post(call run) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    if (post_) {
      post_(std::move(run));
    } else {
      waiting_.push_back(std::move(run));
    }
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    post_ = nullptr;
    waiting_.clear();
  }

 private:
  std::mutex mutex_;
  std::function<bool(call)> post_;
  std::vector<call> waiting_;
  bool closed_ = false;
};

}  // namespace troupe::serving
