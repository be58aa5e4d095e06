// The asynchronous machinery of the wgmma kernels: barriers in shared memory, the copy engine, and
// the ring of stages between one producer and the warpgroups that multiply. sm_90a only.
#pragma once

#include <cuda.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/matmul/wgmma_step.cuh"
#include "kernels/matmul/wgmma_tiles.cuh"

namespace troupe::kernels::cuda {

inline constexpr int warpgroup_threads = 128;
inline constexpr int swizzle_atom_bytes = 1024;  // 8 rows of 128 bytes: what the swizzle permutes
inline constexpr int k_tile_row_bytes = 128;
inline constexpr int weights_group_bytes = 64 * k_tile_row_bytes;  // the M of one warpgroup
inline constexpr int barrier_area_bytes = 256;

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
// Makes initialised barriers known to the copy engine and to the cluster.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
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
// Waits for all and takes the sums back.
template <int Count>
__device__ __forceinline__ void wgmma_finish(float (&d)[Count]) {
  wgmma_wait<0>();
#pragma unroll
  for (float& sum : d) pin(sum);
}

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

// A thread's two rows of the tile have a scale each.
struct row_scales {
  segment_scales low;
  segment_scales high;

  __device__ __forceinline__ row_scales(const matmul_kernel_args& args, int first_output)
      : row_scales(args.weights, {args.weights.outputs, args.fused != gate::none}, first_output,
                   group_warp() * 16 + lane_id() / 4) {}

 private:
  __device__ __forceinline__ row_scales(const matmul_weights& weights, const tile_rows& rows_of,
                                        int first_output, int row)
      : low(weights, rows_of.weight_row(first_output, row)),
        high(weights, rows_of.weight_row(first_output, row + 8)) {}
};

// total += segment times the scales of the thread's two rows.
template <int Count>
__device__ __forceinline__ void add_segment(float low, float high, const float (&segment)[Count],
                                            float (&total)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    total[i] = __fmaf_rn(i % 4 < 2 ? low : high, segment[i], total[i]);
  }
}

// total = the sum of the run's segments.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_run(ring<Shape>& from, int group,
                                             const matmul_weights& weights, int run,
                                             const row_scales& scales, float (&total)[Count]) {
  clear(total);
  const int segment_tiles = segment_inputs(weights) / matmul_k_tile;
  const int tiles = k_tiles_of(weights, run);
  auto padded = static_cast<int>(weights.padded_run_begin[run]);
  float segment[Count];
  clear(segment);
  for (int tile = 0; tile < tiles; tile += segment_tiles) {
    multiply_segment(from, group, min(segment_tiles, tiles - tile), segment);
    add_segment(scales.low.at(padded), scales.high.at(padded), segment, total);
    padded += segment_tiles * matmul_k_tile;
  }
}

// A thread's share of 64 outputs by a segment of float8 weights, as bfloat16: 8 steps.
struct float8_steps {
  std::uint32_t of[8][4];

  // Of the thread's first 16 bytes of its lower row, in the warpgroup's part of a stage.
  __device__ __forceinline__ static std::uint32_t place() {
    return (group_warp() * 16 + lane_id() / 4) * matmul_float8_segment + lane_id() % 4 * 16;
  }
  __device__ __forceinline__ void load(std::uint32_t from) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 low = load_shared(from + half * 64);
      const uint4 high = load_shared(from + half * 64 + 8 * matmul_float8_segment);
      const std::uint32_t lows[4] = {low.x, low.y, low.z, low.w};
      const std::uint32_t highs[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        of[half * 4 + i][0] = float8_pair<false>(lows[i]);
        of[half * 4 + i][1] = float8_pair<false>(highs[i]);
        of[half * 4 + i][2] = float8_pair<true>(lows[i]);
        of[half * 4 + i][3] = float8_pair<true>(highs[i]);
      }
    }
  }
  // d = the steps times the input in tiles of 64 inputs; not waited for.
  template <class Shape, int Count>
  __device__ __forceinline__ void multiply(std::uint32_t stage, float (&d)[Count]) const {
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint64_t b = descriptor(stage + Shape::weights_bytes + i / 4 * Shape::tile_bytes);
      wgmma_step(d, of[i], b + 2 * (i % 4), i > 0);
    }
    wgmma_commit();
  }
};

// The sum of a run's segments from float8 weights as they lie in memory, 64 outputs by a segment a
// stage. They become bfloat16 in registers, which wgmma reads until the wait: only then come the
// next. What else there is to do meanwhile, other warpgroups have.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_float8_run(ring<Shape>& from, int group,
                                                    const matmul_weights& weights, int run,
                                                    const row_scales& scales,
                                                    float (&total)[Count]) {
  clear(total);
  const std::uint32_t place = group * weights_group_bytes + float8_steps::place();
  const auto end = static_cast<int>(weights.padded_run_begin[run + 1]);
  float segment[Count];
  clear(segment);
  for (auto at = static_cast<int>(weights.padded_run_begin[run]); at < end;
       at += matmul_float8_segment) {
    const float low = scales.low.at(at);
    const float high = scales.high.at(at);
    from.wait_full();
    float8_steps steps;
    steps.load(from.address() + place);
    steps.template multiply<Shape>(from.address(), segment);
    wgmma_finish(segment);
    release_stage<Shape::cluster>(from.empty());
    from.advance();
    add_segment(low, high, segment, total);
  }
}

// The same by mma.sync, whose operands the compiler sees: for up to 16 rows, where wgmma's time is
// the latency of its chain.
template <class Shape, int Count>
__device__ __forceinline__ void multiply_float8_few(ring<Shape>& from, int group,
                                                    const matmul_weights& weights, int run,
                                                    const row_scales& scales,
                                                    float (&total)[Count]) {
  clear(total);
  const std::uint32_t place = group * weights_group_bytes + float8_steps::place();
  const auto end = static_cast<int>(weights.padded_run_begin[run + 1]);
  const int token = lane_id() / 4;
  const std::uint32_t row = Shape::weights_bytes + token * k_tile_row_bytes + lane_id() % 4 * 4;
  for (auto at = static_cast<int>(weights.padded_run_begin[run]); at < end;
       at += matmul_float8_segment) {
    const float low = scales.low.at(at);
    const float high = scales.high.at(at);
    from.wait_full();
    float8_steps steps;
    steps.load(from.address() + place);
    float segment[Count / 4][4];
#pragma unroll
    for (int j = 0; j < Count / 4; ++j) {
      clear(segment[j]);
      // Rows j * 8 + token; the eighth of a row that has some inputs is swizzled by the row.
      const std::uint32_t rows = from.address() + row + j * 8 * k_tile_row_bytes;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t tile = rows + i / 4 * Shape::tile_bytes;
        const std::uint32_t first = load_shared_word(tile + ((i % 4 * 2) ^ token) * 16);
        const std::uint32_t second = load_shared_word(tile + ((i % 4 * 2 + 1) ^ token) * 16);
        mma_step(segment[j], steps.of[i], first, second);
      }
    }
    __syncwarp();  // all lanes have read the stage
    release_stage<Shape::cluster>(from.empty());
    from.advance();
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      total[i] = __fmaf_rn(i % 4 < 2 ? low : high, segment[i / 4][i % 4], total[i]);
    }
  }
}

}  // namespace troupe::kernels::cuda
