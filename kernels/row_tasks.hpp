// Deals the rows of a cheap op to the pool in pieces worth waking a thread for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Elements a piece has at least: at 4 to 8 elements a nanosecond a piece takes a few microseconds,
// against about one that it costs to wake a thread.
inline constexpr std::int64_t row_task_elements = 16'384;

// Calls body(begin, end) over ranges that cover [0, rows); `elements` is a row's work.
template <class Body>
void for_row_ranges(thread_pool& pool, std::int64_t rows, std::int64_t elements, const Body& body) {
  if (rows <= 0) return;
  const std::int64_t per_task =
      std::max<std::int64_t>(1, row_task_elements / std::max<std::int64_t>(1, elements));
  const std::int64_t tasks = (rows + per_task - 1) / per_task;
  if (tasks == 1 || pool.threads() == 1) {
    body(std::int64_t{0}, rows);
    return;
  }
  pool.parallel_for(tasks, [&](std::int64_t task, int /*thread*/) {
    body(task * per_task, std::min(rows, (task + 1) * per_task));
  });
}

}  // namespace troupe::kernels
