// d += a b, or d = a b where `add` is false, by wgmma: 64 outputs by 16 inputs by 8 .. 128 rows of
// the batch, b (and a) by descriptors (see descriptor()). A thread of the warpgroup holds, of every
// 8 rows of the batch j: output 16 warp + lane / 4 in d[4 j], d[4 j + 1] for rows 8 j + 2 (lane %
// 4) and the next, and output + 8 in d[4 j + 2], d[4 j + 3]. In registers a[0] and a[2] are of that
// output, a[1] and a[3] of output + 8: inputs 2 (lane % 4) and the next, then those 8 later.
// wgmma_step_across() takes a b whose inputs, not its rows, lie one behind the other: see
// descriptor_across().
//
// What is in registers belongs to the tensor cores until it is waited for, operands too: they must
// stay in use until then (pin()), else the assembler may put other things there, and nothing warns.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"

namespace troupe::kernels::cuda {

// The warp's number within its warpgroup.
__device__ __forceinline__ int group_warp() {
  return static_cast<int>(threadIdx.x) / warp_threads % 4;
}
__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) % warp_threads; }

#define TROUPE_F4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define TROUPE_F8(i) TROUPE_F4(i), TROUPE_F4((i) + 4)
#define TROUPE_F16(i) TROUPE_F8(i), TROUPE_F8((i) + 8)
#define TROUPE_F32(i) TROUPE_F16(i), TROUPE_F16((i) + 16)
#define TROUPE_F64(i) TROUPE_F32(i), TROUPE_F32((i) + 32)
#define TROUPE_D4 "{%0,%1,%2,%3}"
#define TROUPE_D8 "{%0,%1,%2,%3,%4,%5,%6,%7}"
#define TROUPE_D16 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}"
#define TROUPE_D32                                                                  \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
  "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"
#define TROUPE_D64                                                                   \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"  \
  "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41," \
  "%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61," \
  "%62,%63}"
#define TROUPE_WGMMA_REGISTERS(name, n, count, a, b, c, e, f, p, across)                          \
  __device__ __forceinline__ void name(float(&d)[count], const std::uint32_t(&of_a)[4],           \
                                       std::uint64_t from_b, bool add) {                          \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #p ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
                 "k16.f32.bf16.bf16 " TROUPE_D##count ", {%" #a ",%" #b ",%" #c ",%" #e "}, %" #f \
                                                      ", p, 1, 1, " #across ";}"                  \
                 : TROUPE_F##count(0)                                                             \
                 : "r"(of_a[0]), "r"(of_a[1]), "r"(of_a[2]), "r"(of_a[3]), "l"(from_b),           \
                   "r"(static_cast<int>(add)));                                                   \
  }
// Rows of the batch; registers of d; numbers of the operands behind them.
#define TROUPE_WGMMA(n, count, a, b, c, e, f, p)                                                  \
  __device__ __forceinline__ void wgmma_step(float(&d)[count], std::uint64_t from_a,              \
                                             std::uint64_t from_b, bool add) {                    \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #c ", 0; wgmma.mma_async.sync.aligned.m64n" #n \
                 "k16.f32.bf16.bf16 " TROUPE_D##count ", %" #a ", %" #b ", p, 1, 1, 0, 0;}"       \
                 : TROUPE_F##count(0)                                                             \
                 : "l"(from_a), "l"(from_b), "r"(static_cast<int>(add)));                         \
  }                                                                                               \
  TROUPE_WGMMA_REGISTERS(wgmma_step, n, count, a, b, c, e, f, p, 0)                               \
  TROUPE_WGMMA_REGISTERS(wgmma_step_across, n, count, a, b, c, e, f, p, 1)

TROUPE_WGMMA(8, 4, 4, 5, 6, 7, 8, 9)
TROUPE_WGMMA(16, 8, 8, 9, 10, 11, 12, 13)
TROUPE_WGMMA(32, 16, 16, 17, 18, 19, 20, 21)
TROUPE_WGMMA(64, 32, 32, 33, 34, 35, 36, 37)
TROUPE_WGMMA(128, 64, 64, 65, 66, 67, 68, 69)

#undef TROUPE_WGMMA
#undef TROUPE_WGMMA_REGISTERS
#undef TROUPE_D64
#undef TROUPE_D32
#undef TROUPE_D16
#undef TROUPE_D8
#undef TROUPE_D4
#undef TROUPE_F64
#undef TROUPE_F32
#undef TROUPE_F16
#undef TROUPE_F8
#undef TROUPE_F4

}  // namespace troupe::kernels::cuda
