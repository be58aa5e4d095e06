// What NCCL is told through environment variables: the network device its connections are bound to,
// and that it opens nothing else. It has no other way to be told.
//
// Called once, at process start, before other threads of ours run (setenv), in processes that may
// use NCCL. A variable that the user has set stays as it is.
//
//   TROUPE_TRY_VOID(kernels::prepare_nccl_environment("lo"));   // a gang on one host
#pragma once

#include <string>

#include "base/error.hpp"

namespace troupe::kernels {

// Sets NCCL_SOCKET_IFNAME to exactly this device, and NCCL_RAS_ENABLE=0 (else NCCL listens for its
// monitoring clients). Errors: invalid_argument (no name of a device), resource_exhausted.
[[nodiscard]] base::result<void> prepare_nccl_environment(const std::string& network_device);

}  // namespace troupe::kernels
