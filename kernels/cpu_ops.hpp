// The CPU's ops: one object per instruction path, over a pool of threads.
//
//   kernels::thread_pool pool({.threads = 2});
//   kernels::cpu_queue queue(pool);
//   TROUPE_TRY(ops, kernels::make_cpu_ops(kernels::instruction_path::avx512));
//   ops->matmul(queue, {...});
#pragma once

#include <memory>

#include "base/error.hpp"
#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Runs every op at once, on the calling thread and the pool's.
class cpu_queue final : public queue {
 public:
  // Lifetime: the pool outlives the queue.
  explicit cpu_queue(thread_pool& pool) : pool_(pool) {}
  [[nodiscard]] thread_pool& pool() noexcept { return pool_; }

 private:
  thread_pool& pool_;
};

// Errors: failed_precondition when this CPU cannot run `path`, naming the paths it can.
// One ops object serves one queue at a time (it owns scratch memory).
[[nodiscard]] base::result<std::unique_ptr<ops>> make_cpu_ops(instruction_path path);

}  // namespace troupe::kernels
