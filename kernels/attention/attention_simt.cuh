// Attention that the tensor-core kernels do not take: a float32 cache, and head dimensions that are
// no multiple of 8 or above 256. A warp a query and head, position by position; one arithmetic for
// any number of rows.
#pragma once

#include "kernels/attention/attention.cuh"

namespace troupe::kernels::cuda {

[[nodiscard]] cudaError_t attention_simt(cudaStream_t stream, const attention_launch& what);

}  // namespace troupe::kernels::cuda
