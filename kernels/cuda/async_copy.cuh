// The asynchronous machinery of Hopper's kernels (sm_90a): barriers in shared memory, the copy
// engine, descriptors and waits of wgmma.
#pragma once

#include <cuda.h>

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

inline constexpr int warpgroup_threads = 128;
inline constexpr int swizzle_atom_bytes = 1024;  // 8 rows of 128 bytes: what the swizzle permutes
inline constexpr int k_tile_row_bytes = 128;
inline constexpr int weights_group_bytes = 64 * k_tile_row_bytes;  // the M of one warpgroup
inline constexpr int barrier_area_bytes = 256;

// Of a CTA's three warpgroups one gives registers away, the other two take them:
// 40 + 2 * 232 = 3 * 168, all there are.
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
}
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
}

__device__ __forceinline__ std::uint32_t shared_address(const void* of) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(of));
}

__device__ __forceinline__ uint4 load_shared(std::uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address));
  return value;
}

__device__ __forceinline__ std::uint32_t load_shared_word(std::uint32_t address) {
  std::uint32_t value = 0;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
  return value;
}

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// What this thread wrote to shared memory becomes visible to the tensor cores, after a barrier.
__device__ __forceinline__ void publish_to_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Makes initialised barriers known to the copy engine and to the cluster.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  publish_to_async();
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Of what came before it orders only this CTA's: enough to give a stage back that was read.
__device__ __forceinline__ void barrier_arrive_at(std::uint32_t barrier, int cta) {
  asm volatile(
      "{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
      "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(barrier),
      "r"(cta)
      : "memory");
}
__device__ __forceinline__ void barrier_arrive_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

__device__ __forceinline__ void store_shared(std::uint32_t address, const uint4& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

__device__ __forceinline__ int cluster_rank() {
  int rank = 0;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}
template <int Threads>
__device__ __forceinline__ void named_sync(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}

// Counts this warp among the Threads of a named barrier without waiting for them.
template <int Threads>
__device__ __forceinline__ void named_arrive(int id) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}

__device__ __forceinline__ std::uint64_t policy_evict_first() {
  std::uint64_t policy = 0;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ std::uint64_t policy_evict_normal() {
  std::uint64_t policy = 0;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Where a copy goes and what it signals.
struct copy_target {
  std::uint32_t to = 0;
  std::uint32_t barrier = 0;
  std::uint64_t policy = 0;
};
__device__ __forceinline__ void copy_2d(const copy_target& target, const CUtensorMap& map, int x,
                                        int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(target.to),
      "l"(&map), "r"(target.barrier), "r"(x), "r"(y), "l"(target.policy)
      : "memory");
}
// Of the outer dimension, and the inner, all.
__device__ __forceinline__ void copy_3d(const copy_target& target, const CUtensorMap& map, int y) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %3}], [%2], %5;" ::"r"(target.to),
      "l"(&map), "r"(target.barrier), "r"(0), "r"(y), "l"(target.policy)
      : "memory");
}
__device__ __forceinline__ void copy_4d(const copy_target& target, const CUtensorMap& map, int x,
                                        int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %4, %5}], [%2], %6;" ::"r"(target.to),
      "l"(&map), "r"(target.barrier), "r"(x), "r"(0), "r"(w), "l"(target.policy)
      : "memory");
}
// To the same places, and barriers, of both CTAs of a cluster.
__device__ __forceinline__ void copy_2d_to_both(const copy_target& target, const CUtensorMap& map,
                                                int x, int y) {
  const std::uint16_t both = 3;
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(target.to),
      "l"(&map), "r"(target.barrier), "r"(x), "r"(y), "h"(both), "l"(target.policy)
      : "memory");
}

// An operand with 128 bytes of inputs a row, 128-byte swizzle: address and strides count 16 bytes;
// groups of 8 rows lie 1024 bytes apart; 1 in the top bits is that swizzle. Adding 2 to the
// descriptor goes on by 16 inputs.
__device__ __forceinline__ std::uint64_t descriptor(std::uint32_t address) {
  constexpr std::uint64_t fixed = (std::uint64_t{1} << 62) |
                                  (std::uint64_t{swizzle_atom_bytes / 16} << 32) |
                                  (std::uint64_t{1} << 16);
  return fixed | ((address & 0x3FFFFU) >> 4);
}
// The same of b's inputs in rows of 64 of the batch: eighths of 8 inputs by 128 bytes lie 1024
// bytes apart, the next 64 rows of the batch `part_bytes` further.
__device__ __forceinline__ std::uint64_t descriptor_across(std::uint32_t address, int part_bytes) {
  constexpr std::uint64_t fixed =
      (std::uint64_t{1} << 62) | (std::uint64_t{swizzle_atom_bytes / 16} << 32);
  return fixed | (static_cast<std::uint64_t>(part_bytes / 16) << 16) | ((address & 0x3FFFFU) >> 4);
}
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// The compiler does not know that registers belong to the tensor cores until the wait: what is read
// or written after it goes through here, so that nothing moves before it.
__device__ __forceinline__ void pin(float& value) { asm volatile("" : "+f"(value)::"memory"); }
__device__ __forceinline__ void pin(std::uint32_t& value) {
  asm volatile("" : "+r"(value)::"memory");
}
// Waits for all and takes the sums back.
template <int Count>
__device__ __forceinline__ void wgmma_finish(float (&d)[Count]) {
  wgmma_wait<0>();
#pragma unroll
  for (float& sum : d) pin(sum);
}

}  // namespace troupe::kernels::cuda
