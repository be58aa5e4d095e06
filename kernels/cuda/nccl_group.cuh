// Ranks that reach each other by NCCL: what kernels::device asks for. Point-to-point, gathers and
// broadcasts only; NCCL adds nothing, since its sums have no fixed order.
//
// libnccl.so.2 is opened when first asked for, not linked: TROUPE_NCCL_LIBRARY names the file, else
// the loader's usual path.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/cuda_queue.cuh"
#include "kernels/device_group.hpp"

namespace troupe::kernels::cuda {

// E.g. "NCCL 2.28.9". Each of these: Errors: failed_precondition (not built in, not found, too
// old).
[[nodiscard]] base::result<std::string> nccl_version();
[[nodiscard]] base::result<device_group_id> make_nccl_id();
// Of the current device, which is the queue's.
[[nodiscard]] base::result<std::unique_ptr<device_group>> make_nccl_group(
    cuda_queue& on, const device_group_options& options);

}  // namespace troupe::kernels::cuda
