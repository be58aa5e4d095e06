// Ranks as threads of this process: the same workers and collectives as a gang's, without the gang.
//
// Rank 0 runs on the caller's thread, the others on threads of their own; each rank has its own
// pool of compute threads. One caller at a time.
//
//   TROUPE_TRY(ranks, engine::thread_executor::start({.files = &files, .tp_size = 2, ...}));
//   TROUPE_TRY(result, ranks->run(plan));
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "engine/executor.hpp"
#include "engine/rank_worker.hpp"

namespace troupe::engine {

struct thread_executor_options {
  const models::checkpoint* files = nullptr;  // borrowed for start()
  models::model_config config;
  int tp_size = 1;
  int pp_size = 1;
  int threads_per_rank = 1;
  kernels::numerics_profile profile;
  kernels::device* device = nullptr;  // of all ranks; null: the CPU. Borrowed
  device_collectives collectives = device_collectives::automatic;
  std::int64_t kv_blocks = 0;
  std::int64_t max_num_batched_tokens = 512;
  std::int64_t max_num_seqs = 16;
  std::function<void(std::uint64_t bytes)> progress;  // packed bytes over all ranks; any thread
};

class thread_executor final : public executor {
 public:
  // Loads all ranks at once. Errors: the first of any rank's.
  [[nodiscard]] static base::result<std::unique_ptr<thread_executor>> start(
      thread_executor_options options);
  ~thread_executor() override;

  using executor::run;
  [[nodiscard]] base::result<step_result> run(const step_plan& plan,
                                              const changes_source& following) override;
  [[nodiscard]] base::epoch_id epoch() const noexcept override { return epoch_; }
  [[nodiscard]] device_idle idle() const noexcept override { return workers_.back()->idle(); }
  // Units: bytes of packed weights of each rank.
  [[nodiscard]] std::vector<std::uint64_t> weight_bytes() const;

 private:
  struct mailbox;
  struct step_order;
  explicit thread_executor(base::epoch_id epoch);
  void serve(std::size_t rank);
  [[nodiscard]] base::result<step_result> run_rank(std::size_t rank, step_order& order);

  base::epoch_id epoch_;
  std::vector<std::unique_ptr<rank_worker>> workers_;
  std::vector<std::unique_ptr<mailbox>> mailboxes_;  // one a rank above 0
  std::vector<std::thread> threads_;
  bool dead_ = false;
};

}  // namespace troupe::engine
