// A warpgroup's chain of wgmma over stages of a ring. Shape, beside a ring's: weights_bytes (the
// input lies behind the weights). sm_90a only.
#pragma once

#include "kernels/cuda/stage_ring.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace troupe::kernels::cuda {

// A warpgroup multiplies the next `tiles` K tiles; `group` is its 64 outputs within a stage. The
// tensor cores always have the next tile queued: a stage is given back one tile later.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_segment(ring<Shape>& from, int group, int tiles,
                                                 float (&d)[Count]) {
  std::uint32_t used = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    from.wait_full();
    const std::uint64_t a = descriptor(from.address() + group * weights_group_bytes);
    const std::uint64_t b = descriptor(from.address() + Shape::weights_bytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_step(d, a + 2 * k, b + 2 * k, tile > 0 || k > 0);
    wgmma_commit();
    wgmma_wait<1>();
    if (tile > 0) release_stage<Shape::cluster>(used);
    used = from.empty();
    from.advance();
  }
  wgmma_finish(d);
  release_stage<Shape::cluster>(used);
}

}  // namespace troupe::kernels::cuda
