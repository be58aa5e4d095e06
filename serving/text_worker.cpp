#include "serving/text_worker.hpp"

namespace troupe::serving {

text_worker::text_worker(text_queue_bounds bounds) : bounds_(bounds), thread_([this] { run(); }) {}

text_worker::~text_worker() { stop(); }

bool text_worker::push(std::size_t bytes, std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  if (stopped_ || jobs_.size() >= bounds_.jobs_max || bytes > bounds_.bytes_max - bytes_) {
    return false;
  }
  bytes_ += bytes;
  jobs_.emplace_back(bytes, std::move(job));
  wake_.notify_one();
  return true;
}

void text_worker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::size_t text_worker::waiting() const {
  const std::lock_guard lock(mutex_);
  return jobs_.size();
}

void text_worker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopped_ || !jobs_.empty(); });
    if (stopped_) break;
    auto [bytes, job] = std::move(jobs_.front());
    jobs_.pop_front();
    bytes_ -= bytes;
    lock.unlock();
    job();
    job = nullptr;  // what it holds goes without the lock
    lock.lock();
  }
  jobs_.clear();
}

}  // namespace troupe::serving
