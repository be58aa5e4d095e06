// The tensor-core step of all kernels.
#pragma once

#include <cstdint>

namespace troupe::kernels::cuda {

// d += a b: a is 16 rows by 16, b 16 by 8 columns. Lane l holds rows l/4 (d[0], d[1]) and l/4 + 8
// (d[2], d[3]) of columns 2 (l % 4) and the next.
__device__ __forceinline__ void mma_step(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                         std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_step(float (&d)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1) {
  mma_step(d, a[0], a[1], a[2], a[3], b0, b1);
}

}  // namespace troupe::kernels::cuda
