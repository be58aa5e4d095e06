// One thread that takes jobs in turn, so that reading long texts never holds up the HTTP thread.
// The queue is bounded by number and by bytes.
//
//   text_worker worker({.jobs_max = 256, .bytes_max = 64 << 20});
//   if (!worker.push(body.size(), job)) ...   // 503
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace troupe::serving {

struct text_queue_bounds {
  std::size_t jobs_max = 0;
  std::size_t bytes_max = 0;
};

class text_worker {
 public:
  explicit text_worker(text_queue_bounds bounds);
  text_worker(const text_worker&) = delete;
  text_worker& operator=(const text_worker&) = delete;
  ~text_worker();

  // False when the queue is full or stop() was called; the job is dropped then. Any thread.
  [[nodiscard]] bool push(std::size_t bytes, std::function<void()> job);
  // Drops what waits and returns when the running job has ended. Not from a job.
  void stop();
  [[nodiscard]] std::size_t waiting() const;

 private:
  void run();

  text_queue_bounds bounds_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::size_t, std::function<void()>>> jobs_;
  std::size_t bytes_ = 0;
  bool stopped_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace troupe::serving
