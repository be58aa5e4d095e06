// What the copy engine of Hopper (sm_90a) is told of a matrix, and whether there is one.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

namespace troupe::kernels::cuda {

// Whether this device and this build have wgmma and tensor maps.
[[nodiscard]] bool has_wgmma();

struct map_shape {
  const void* data = nullptr;
  bool bytes = false;  // elements are bytes, not swizzled; else bfloat16, by 128 bytes
  cuuint32_t rank = 2;
  cuuint64_t sizes[4] = {};
  cuuint64_t strides[3] = {};  // bytes
  cuuint32_t box[4] = {};
};

// Errors: cudaErrorInvalidValue (what the hardware cannot address), cudaErrorNotSupported.
[[nodiscard]] cudaError_t encode_map(const map_shape& of, CUtensorMap* made);

}  // namespace troupe::kernels::cuda
