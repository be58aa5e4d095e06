// The ring of stages between one producer and the warpgroups that multiply. sm_90a only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/matmul/wgmma_step.cuh"

namespace troupe::kernels::cuda {

// One side's place in the ring. Shape: stages, stage_bytes, weights_bytes (the input lies behind
// the weights), cluster. Barriers: stages that are full, then stages that are empty.
template <class Shape>
struct ring {
  std::uint32_t memory = 0;    // stage 0, a multiple of swizzle_atom_bytes
  std::uint32_t barriers = 0;  // of 8 bytes
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ std::uint32_t address() const {
    return memory + stage * Shape::stage_bytes;
  }
  __device__ __forceinline__ std::uint32_t full() const { return barriers + stage * 8; }
  __device__ __forceinline__ std::uint32_t empty() const {
    return barriers + (Shape::stages + stage) * 8;
  }
  // The producer: until the stage's last contents have been multiplied; at once in the first round.
  __device__ __forceinline__ void wait_empty() const { barrier_wait(empty(), parity ^ 1U); }
  __device__ __forceinline__ void wait_full() const { barrier_wait(full(), parity); }
  __device__ __forceinline__ void advance() {
    if (++stage < Shape::stages) return;
    stage = 0;
    parity ^= 1U;
  }
};

// One thread, before all others meet: `fills` arrivals make a stage full, one of each warp that
// multiplies (in all CTAs of the cluster) makes it empty.
template <class Shape>
__device__ __forceinline__ void init_ring(std::uint32_t barriers, int fills, int warps) {
  static_assert(Shape::stages * 16 <= barrier_area_bytes - 8);
  for (int i = 0; i < Shape::stages; ++i) {
    barrier_init(barriers + i * 8, fills);
    barrier_init(barriers + (Shape::stages + i) * 8, warps * Shape::cluster);
  }
  barrier_init_fence();
}

template <int Cluster>
__device__ __forceinline__ void release_stage(std::uint32_t empty) {
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  if constexpr (Cluster == 1) {
    if (lane == 0) barrier_arrive(empty);
  } else {
    if (lane < Cluster) barrier_arrive_at(empty, lane);
  }
}

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
