// CUDA's status codes as the project's errors.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "base/error.hpp"

namespace troupe::kernels::cuda {

[[nodiscard]] inline tl::unexpected<base::error> cuda_failure(cudaError_t code,
                                                              const std::string& doing) {
  const bool memory = code == cudaErrorMemoryAllocation;
  return base::fail(memory ? base::error_code::resource_exhausted : base::error_code::internal,
                    "cuda",
                    doing + ": " + cudaGetErrorName(code) + ": " + cudaGetErrorString(code));
}

[[nodiscard]] inline base::result<void> checked(cudaError_t code, const char* doing) {
  if (code == cudaSuccess) return {};
  return cuda_failure(code, doing);
}

}  // namespace troupe::kernels::cuda
