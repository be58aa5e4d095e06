// A rank's compute threads: persistent, the caller being thread 0.
//
// parallel_for deals indices out; which thread takes which index never changes a result, since
// every kernel computes an output element in one fixed order on one thread. Waits spin a bounded
// time, then sleep on a futex, so that more ranks than cores still make progress. One thread at a
// time may call parallel_for; calls do not nest.
//
//   kernels::thread_pool pool({.threads = 2});
//   pool.parallel_for(blocks, [&](std::int64_t block, int thread) { ... });
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

#include "base/vitals.hpp"

namespace troupe::kernels {

struct thread_pool_options {
  int threads = 1;  // Range: 1 .. 1024, the caller included
  // Borrowed; ticked by the caller while it works: an op of a large model may take seconds.
  base::rank_vitals* vitals = nullptr;
};

class thread_pool {
 public:
  explicit thread_pool(thread_pool_options options);
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool();

  [[nodiscard]] int threads() const noexcept;

  // Calls body(index, thread) once for each index in [0, count); returns when all are done.
  // Cost: about a microsecond when the workers are spinning.
  template <class Body>
  void parallel_for(std::int64_t count, const Body& body) {
    run(
        count,
        [](const void* context, std::int64_t index, int thread) {
          (*static_cast<const Body*>(context))(index, thread);
        },
        &body);
  }

 private:
  using task = void (*)(const void* context, std::int64_t index, int thread);
  void run(std::int64_t count, task function, const void* context);
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace troupe::kernels
