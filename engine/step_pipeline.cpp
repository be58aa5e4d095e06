#include "engine/step_pipeline.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.hpp"

namespace troupe::engine {

class step_pipeline::impl {
 public:
  explicit impl(executor& ranks) : ranks_(ranks) {}
  impl(const impl&) = delete;
  impl& operator=(const impl&) = delete;
  ~impl() {
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
      plans_.clear();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void submit(step_plan plan) {
    {
      const std::scoped_lock lock(mutex_);
      TROUPE_CHECK(open_ < depth);
      ++open_;
      plans_.push_back(std::move(plan));
    }
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
    changed_.notify_all();
  }

  base::result<step_result> wait() {
    std::unique_lock lock(mutex_);
    TROUPE_CHECK(open_ > 0);
    changed_.wait(lock, [this] { return !results_.empty(); });
    base::result<step_result> oldest = std::move(results_.front());
    results_.pop_front();
    --open_;
    return oldest;
  }

  void provide(std::vector<schemas::logit_changes> changes) {
    {
      const std::scoped_lock lock(mutex_);
      TROUPE_CHECK(open_ == 1 && !changes_);
      changes_ = std::move(changes);
    }
    changed_.notify_all();
  }

 private:
  void serve() {
    const changes_source following = [this] { return await_changes(); };
    for (;;) {
      std::optional<step_plan> plan;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return closed_ || !plans_.empty(); });
        if (closed_) return;
        plan = std::move(plans_.front());
        plans_.pop_front();
      }
      auto result = failed_ ? tl::unexpected(*failed_) : ranks_.run(*plan, following);
      {
        const std::scoped_lock lock(mutex_);
        if (!result) failed_ = result.error();
        results_.push_back(std::move(result));
      }
      changed_.notify_all();
    }
  }

  base::result<std::vector<schemas::logit_changes>> await_changes() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || changes_.has_value(); });
    if (!changes_) {
      return base::fail(base::error_code::cancelled, "engine", "the engine has been let go of");
    }
    return *std::exchange(changes_, std::nullopt);
  }

  executor& ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<step_plan> plans_;  // that have not begun
  std::deque<base::result<step_result>> results_;
  std::optional<std::vector<schemas::logit_changes>> changes_;
  std::optional<base::error> failed_;  // of the serving thread alone
  int open_ = 0;
  bool closed_ = false;
  std::thread thread_;
};

step_pipeline::step_pipeline(executor& ranks) : impl_(std::make_unique<impl>(ranks)) {}
step_pipeline::~step_pipeline() = default;

void step_pipeline::submit(step_plan plan) { impl_->submit(std::move(plan)); }
base::result<step_result> step_pipeline::wait() { return impl_->wait(); }
void step_pipeline::provide(std::vector<schemas::logit_changes> changes) {
  impl_->provide(std::move(changes));
}

}  // namespace troupe::engine
