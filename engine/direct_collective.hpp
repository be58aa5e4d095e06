// A group whose buffers lie in devices that reach each other without the host: all collectives over
// a kernels::device_group, with the rounds and the bits of transport::message_collective.
//
// Operations are enqueued; where collective.hpp says that one "returns when", here a later op of
// the queue may count on it. Used by the thread of the rank's queue. A failed call ends the group.
//
//   auto tp = engine::direct(std::move(group), {.host = *groups.tp, .on = device, .epoch = epoch});
#pragma once

#include <cstddef>
#include <memory>

#include "base/ids.hpp"
#include "kernels/device.hpp"
#include "transport/collective.hpp"

namespace troupe::engine {

struct direct_options {
  transport::collective& host;    // the same ranks, for barriers; outlives the group
  kernels::device* on = nullptr;  // where its scratch lies; null: the CPU. Outlives the group
  base::epoch_id epoch;
  // From this size on a sum halves its data before it exchanges it; see message_options. An
  // operation of NCCL costs some 15 us and NVLink moves 100 GB/s and more: 2.4 a b is 4 MB at 8
  // ranks. Not measured.
  std::size_t halving_bytes_min = std::size_t{4} << 20;
};

[[nodiscard]] std::unique_ptr<transport::collective> direct(
    std::unique_ptr<kernels::device_group> group, const direct_options& options);

}  // namespace troupe::engine
