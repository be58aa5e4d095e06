// Attention of many rows of a sequence on Hopper's warpgroup tensor cores (sm_90a): the bits of
// attention_many_rows.cuh.
#pragma once

#include "kernels/attention/attention_warp.cuh"

namespace troupe::kernels::cuda {

inline constexpr int wgmma_rows_tile = 128;  // packed rows of a CTA

struct wgmma_rows_work {
  const row_tile* tiles;  // device
  std::size_t count;      // of tiles
  int kv_heads;
};

// Whether this device, this head and these addresses allow it.
[[nodiscard]] bool can_attend_by_wgmma(const attention_launch& what);
// Errors: the launch's.
[[nodiscard]] cudaError_t attend_by_wgmma(cudaStream_t stream, const attention_args_device& args,
                                          const wgmma_rows_work& work);

}  // namespace troupe::kernels::cuda
