// Ranks on devices of their own that reach each other without the host: what engine/ builds the
// collectives of a step on (engine/direct_collective.hpp).
//
// Life cycle: rank 0 makes an id (device::make_group_id), every rank a group from it, all at the
// same time; one group an epoch, dead after abort() or a failure, destroyed before its queue. All
// addresses are the device's. Operations are enqueued on the rank's queue, in its order: the host
// gets on at once, and waits in queue::synchronize(), which ends when the group is aborted. Every
// rank enqueues the same operations in the same order.
//
//   TROUPE_TRY(group, device->make_group(*queue, {.id = id, .rank = 1, .size = 2}));
//   TROUPE_TRY_VOID(group->exchange({{{.to = 0, .bytes = out}}}, {{{.from = 0, .bytes = in}}}));
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.hpp"

namespace troupe::kernels {

// What the ranks of a new group find each other by. From another process: untrusted bytes.
using device_group_id = std::array<std::uint8_t, 128>;

struct device_group_options {
  device_group_id id{};
  int rank = 0;
  int size = 1;
  // Until all ranks have met; later waits end with the group.
  std::chrono::milliseconds patience{30'000};
  // Set by any thread when the epoch ends; looked at in every wait. Null: abort() only.
  const std::atomic<bool>* over = nullptr;
};

struct device_outgoing {
  int to = 0;
  std::span<const std::byte> bytes;
};
struct device_incoming {
  int from = 0;
  std::span<std::byte> bytes;
};

class device_group {
 public:
  device_group() = default;
  device_group(const device_group&) = delete;
  device_group& operator=(const device_group&) = delete;
  virtual ~device_group() = default;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;

  // Each operation: Errors: aborted, unavailable (a peer is gone, or the library failed), internal
  // (the device failed).

  // All of these messages at once, none waiting for another; sizes agree between the two ends, at
  // most one message each way between two ranks. Empty ones are not sent.
  [[nodiscard]] virtual base::result<void> exchange(std::span<const device_outgoing> out,
                                                    std::span<const device_incoming> in) = 0;
  // `mine` may be its own part of `all`. Shape: all.size() == mine.size() * size()
  [[nodiscard]] virtual base::result<void> all_gather(std::span<const std::byte> mine,
                                                      std::span<std::byte> all) = 0;
  [[nodiscard]] virtual base::result<void> broadcast(int root, std::span<std::byte> bytes) = 0;

  // values[i] += addend[i], on this rank only. Shape: equal sizes, no overlap.
  [[nodiscard]] virtual base::result<void> add(std::span<float> values,
                                               std::span<const float> addend) = 0;
  // On this rank only. Shape: equal sizes; the same bytes, or no overlap.
  [[nodiscard]] virtual base::result<void> copy(std::span<const std::byte> from,
                                                std::span<std::byte> to) = 0;

  // Returns when all that was enqueued on the queue is done.
  [[nodiscard]] virtual base::result<void> wait() = 0;

  // Ends every wait of this rank. Any thread, any time, also twice.
  virtual void abort() noexcept = 0;
};

}  // namespace troupe::kernels
