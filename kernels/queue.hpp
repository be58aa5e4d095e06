// Where the work of one rank runs, in order: the CPU's threads, or a stream of a GPU.
//
// Ops are enqueued (kernels/ops.hpp); what the host hands in for a step (ids, slots, tables,
// angles) lies in step memory, which a device has mirrored when the ops read it; what ops give back
// to the host lies in result memory, valid after synchronize(). A queue that can record keeps a
// whole step and replays it, reading step memory anew each time.
//
//   auto memory = queue.begin_step(inputs.bytes());   // host memory; fill it
//   queue.commit_step(groups);                        // from here ops may read it
//   ops.embed(queue, ...); ...
//   TROUPE_TRY_VOID(queue.synchronize());             // results are there
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

// Rows of one sequence within a step: consecutive tokens at consecutive positions.
struct sequence_rows {
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t first_position = 0;
  // block_table[i] is the cache block of absolute positions [16 i, 16 i + 16). Entries wholly
  // outside the window may hold anything.
  std::span<const std::int32_t> block_table;
};

// A step that was recorded; replayed on the queue that recorded it.
class recording {
 public:
  recording() = default;
  recording(const recording&) = delete;
  recording& operator=(const recording&) = delete;
  virtual ~recording() = default;
  // False: the queue's memory has moved since, the step must be recorded anew.
  [[nodiscard]] virtual bool current() const noexcept = 0;
  // Enqueues the whole step. Errors: internal (the device failed).
  [[nodiscard]] virtual base::result<void> replay() = 0;
};

// One thread. The base class is a queue of the CPU, where everything happens at once.
class queue {
 public:
  queue() = default;
  queue(const queue&) = delete;
  queue& operator=(const queue&) = delete;
  virtual ~queue() = default;

  // Returns when all that was enqueued is done and visible to the host.
  // Errors: internal (the device failed; nothing on it can be trusted any more).
  [[nodiscard]] virtual base::result<void> synchronize() { return {}; }

  // Before a collective reads what ops wrote. A collective of another device waits for itself.
  virtual void hand_over() {}

  // Host memory for a step's inputs, 64-byte aligned. Lifetime: until the next begin_step().
  // The same address as before unless it must grow.
  [[nodiscard]] virtual base::result<std::span<std::byte>> begin_step(std::size_t bytes) {
    return grow(step_, bytes);
  }
  // Everything in the step memory is written; `groups`: the sequences of each KV group, whose
  // tables lie there too.
  virtual void commit_step(std::span<const std::span<const sequence_rows>> groups) {
    static_cast<void>(groups);
  }
  // Host memory for what ops give back. Lifetime: until the next call.
  [[nodiscard]] virtual base::result<std::span<std::byte>> result_memory(std::size_t bytes) {
    return grow(results_, bytes);
  }

  // Copies between this device's memory and the host's, in the queue's order; both wait.
  // Errors: internal.
  [[nodiscard]] virtual base::result<void> read(const std::byte* from, std::span<std::byte> to);
  [[nodiscard]] virtual base::result<void> write(std::span<const std::byte> from, std::byte* to);

  // Whether begin_recording() may be called.
  [[nodiscard]] virtual bool can_record() const noexcept { return false; }
  // From here on ops are recorded instead of run; step and result memory must not be asked for
  // anew.
  [[nodiscard]] virtual base::result<void> begin_recording();
  [[nodiscard]] virtual base::result<std::unique_ptr<recording>> end_recording();

 protected:
  [[nodiscard]] static std::span<std::byte> grow(std::vector<std::byte>& memory, std::size_t bytes);

 private:
  std::vector<std::byte> step_;
  std::vector<std::byte> results_;
};

}  // namespace troupe::kernels
