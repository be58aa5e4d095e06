// A rank's group for buffers on its device, made at the first step of an epoch: by the devices
// themselves where all ranks of the group can (collectives_path.hpp), else through host memory.
//
// Every rank of the group calls it at the same time; id and outcome travel over the host's group.
//
//   TROUPE_TRY(tp, engine::form_device_group(*groups.tp, {.on = *device, .queue = *queue, ...}));
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/ids.hpp"
#include "engine/collectives_path.hpp"
#include "kernels/device.hpp"
#include "transport/collective.hpp"

namespace troupe::engine {

// Lifetime: all that is borrowed outlives the group.
struct device_group_formation {
  kernels::device& on;
  kernels::queue& queue;
  base::epoch_id epoch;
  device_collectives choice = device_collectives::automatic;
  std::string name{};                       // of the group, for the log
  const std::atomic<bool>* over = nullptr;  // the epoch is; see device_group_options
  std::function<void(const std::string&)> log{};
};

// Errors: those of the host's group; failed_precondition (nccl was asked for and cannot be);
// aborted.
[[nodiscard]] base::result<std::unique_ptr<transport::collective>> form_device_group(
    transport::collective& host, const device_group_formation& how);

}  // namespace troupe::engine
