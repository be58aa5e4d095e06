// The ring of stages between one producer and the warpgroups that multiply. sm_90a only.
#pragma once

#include "kernels/cuda/async_copy.cuh"

namespace troupe::kernels::cuda {

// One side's place in the ring. Shape: stages, stage_bytes, cluster. Barriers: stages that are
// full, then stages that are empty.
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

}  // namespace troupe::kernels::cuda
