// values[i] += addend[i]: one node of a sum over ranks.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

[[nodiscard]] cudaError_t add_floats(cudaStream_t stream, float* values, const float* addend,
                                     std::int64_t count);

}  // namespace troupe::kernels::cuda
