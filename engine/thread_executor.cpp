#include "engine/thread_executor.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

namespace troupe::engine {

// One step of all ranks. What follows is asked for once and given to each.
struct thread_executor::step_order {
  const step_plan& plan;
  const changes_source& following;
  std::mutex mutex = {};
  std::optional<base::result<std::vector<schemas::logit_changes>>> changes = {};

  base::result<std::vector<schemas::logit_changes>> ask() {
    const std::scoped_lock lock(mutex);
    if (!changes) changes = following();
    return *changes;
  }
};

// Hands steps to one rank's thread and results back. One step is in flight at most.
struct thread_executor::mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  step_order* order = nullptr;
  std::optional<base::result<step_result>> result;
  bool closed = false;
};

thread_executor::thread_executor(base::epoch_id epoch) : epoch_(epoch) {}

base::result<std::unique_ptr<thread_executor>> thread_executor::start(
    thread_executor_options options) {
  const base::epoch_id epoch{1, 1};
  TROUPE_TRY_VOID(models::check_placement(
      options.config, {.tp_size = options.tp_size, .pp_size = options.pp_size}));
  std::unique_ptr<thread_executor> started(new thread_executor(epoch));
  auto groups =
      transport::make_thread_world({.tp_size = options.tp_size, .pp_size = options.pp_size}, epoch);
  const std::size_t ranks = groups.size();
  std::vector<std::optional<base::result<std::unique_ptr<rank_worker>>>> loaded(ranks);
  std::atomic<std::uint64_t> bytes = 0;
  std::vector<std::thread> loaders;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const int number = static_cast<int>(rank);
    rank_worker_options own{.files = options.files,
                            .config = options.config,
                            .where = {.tp_rank = number % options.tp_size,
                                      .tp_size = options.tp_size,
                                      .pp_rank = number / options.tp_size,
                                      .pp_size = options.pp_size},
                            .profile = options.profile,
                            .device = options.device,
                            .collectives = options.collectives,
                            .threads = options.threads_per_rank,
                            .kv_blocks = options.kv_blocks,
                            .max_num_batched_tokens = options.max_num_batched_tokens,
                            .max_num_seqs = options.max_num_seqs,
                            .progress = {}};
    if (options.progress) {
      own.progress = [&, seen = std::uint64_t{0}](std::uint64_t now) mutable {
        options.progress(bytes += now - std::exchange(seen, now));
      };
    }
    loaders.emplace_back([&loaded, rank, own = std::move(own)]() mutable {
      loaded[rank] = rank_worker::load(std::move(own));
    });
  }
  for (std::thread& loader : loaders) loader.join();
  for (auto& worker : loaded) {
    if (!*worker) return tl::unexpected(std::move(*worker).error());
    started->workers_.push_back(std::move(**worker));
  }
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    started->workers_[rank]->join(std::move(groups[rank]), epoch);
  }
  // All mailboxes before the first thread, which reads the vector.
  for (std::size_t rank = 1; rank < ranks; ++rank) {
    started->mailboxes_.push_back(std::make_unique<mailbox>());
  }
  for (std::size_t rank = 1; rank < ranks; ++rank) {
    started->threads_.emplace_back([self = started.get(), rank] { self->serve(rank); });
  }
  return started;
}

thread_executor::~thread_executor() {
  for (const auto& box : mailboxes_) {
    const std::scoped_lock lock(box->mutex);
    box->closed = true;
    box->changed.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void thread_executor::serve(std::size_t rank) {
  mailbox& box = *mailboxes_[rank - 1];
  for (;;) {
    step_order* order = nullptr;
    {
      std::unique_lock lock(box.mutex);
      box.changed.wait(lock, [&] { return box.closed || box.order != nullptr; });
      if (box.order == nullptr) return;
      order = std::exchange(box.order, nullptr);
    }
    auto result = run_rank(rank, *order);
    const std::scoped_lock lock(box.mutex);
    box.result = std::move(result);
    box.changed.notify_all();
  }
}

base::result<step_result> thread_executor::run_rank(std::size_t rank, step_order& order) {
  auto result = workers_[rank]->run(order.plan, [&order] { return order.ask(); });
  // The others may be waiting for this rank in a collective that it will never reach.
  if (!result) workers_[rank]->abort();
  return result;
}

base::result<step_result> thread_executor::run(const step_plan& plan,
                                               const changes_source& following) {
  if (dead_) {
    return base::fail(base::error_code::failed_precondition, "engine",
                      "a rank failed in an earlier step");
  }
  step_order order{.plan = plan, .following = following};
  for (const auto& box : mailboxes_) {
    const std::scoped_lock lock(box->mutex);
    box->order = &order;
    box->changed.notify_all();
  }
  std::vector<base::result<step_result>> results;
  results.push_back(run_rank(0, order));
  for (const auto& box : mailboxes_) {
    std::unique_lock lock(box->mutex);
    box->changed.wait(lock, [&] { return box->result.has_value(); });
    results.push_back(*std::exchange(box->result, std::nullopt));
  }
  // An abort is the echo of another rank's failure: report the failure itself.
  const base::error* failure = nullptr;
  for (const auto& result : results) {
    if (result) continue;
    if (failure == nullptr || failure->code == base::error_code::aborted) {
      failure = &result.error();
    }
  }
  if (failure != nullptr) {
    dead_ = true;
    return tl::unexpected(*failure);
  }
  // Every tensor-parallel rank of the last stage drew the same tokens; the first one's count.
  step_result step;
  for (auto& result : results) {
    const bool drew = !result->tokens.empty() || !result->scored.empty();
    if (!drew) continue;
    step = std::move(*result);
    break;
  }
  for (const auto& worker : workers_) worker->remember(step);
  return step;
}

std::vector<std::uint64_t> thread_executor::weight_bytes() const {
  std::vector<std::uint64_t> bytes;
  for (const auto& worker : workers_) bytes.push_back(worker->weight_bytes());
  return bytes;
}

}  // namespace troupe::engine
