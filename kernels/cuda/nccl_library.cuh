// NCCL's functions, found in libnccl.so.2 at run time.
#pragma once

#include <nccl.h>

#include <string>

#include "base/error.hpp"

namespace troupe::kernels::cuda {

// The first that is built for CUDA 13.
inline constexpr int nccl_version_min = NCCL_VERSION(2, 27, 0);

struct nccl_library {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  decltype(&ncclCommInitRankConfig) init_rank = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  int version = 0;  // as NCCL_VERSION makes it
};

// The library stays loaded. Errors: failed_precondition (not found, too old).
[[nodiscard]] base::result<nccl_library> load_nccl();

// E.g. "2.28.9".
[[nodiscard]] std::string nccl_version_text(int version);

}  // namespace troupe::kernels::cuda
