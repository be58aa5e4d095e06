// What one thread waits for: descriptors with what to do when they are ready, and a deadline.
// Filled anew for every wait. An answer may destroy what another one belongs to: answers look their
// object up by its number and never keep a pointer to what can go.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "base/clock.hpp"

namespace troupe::supervisor {

class poll_set {
 public:
  using answer = std::function<void(short ready)>;

  void add(int descriptor, short events, answer what) {
    waiting_.push_back({descriptor, events, 0});
    answers_.push_back(std::move(what));
  }

  // Waits until one is ready or `until` has come, calls the answers, and forgets all.
  void wait(base::steady_time until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - base::steady_now());
    const auto limit = std::clamp<std::chrono::milliseconds::rep>(left.count(), 0, 1000);
    const int ready =
        ::poll(waiting_.data(), static_cast<nfds_t>(waiting_.size()), static_cast<int>(limit));
    for (std::size_t at = 0; ready > 0 && at < waiting_.size(); ++at) {
      if (waiting_[at].revents != 0) answers_[at](waiting_[at].revents);
    }
    waiting_.clear();
    answers_.clear();
  }

 private:
  std::vector<pollfd> waiting_;
  std::vector<answer> answers_;
};

}  // namespace troupe::supervisor
