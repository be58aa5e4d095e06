// Explicit choice of a Highway target by instruction path: no global dispatch state.
//
// A SIMD source (<op>_cpu.cpp) is compiled once for AVX2 and once for AVX-512; a baseline target is
// unavoidable and left empty. Only AVX-512 or AVX2 functions are ever called, by name.
//
//   #include "kernels/simd_paths.hpp"  // before Highway: it disables the other targets
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "kernels/add/add_cpu.cpp"
//   #include <hwy/foreach_target.h>
//   #include <hwy/highway.h>
//   #if TROUPE_SIMD_TARGET
//   ... functions in namespace troupe::kernels::HWY_NAMESPACE
//   #endif
//   #if HWY_ONCE
//   void add(...) { TROUPE_SIMD_CALL(path, add_rows, pool, args); }
//   #endif
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif
#include <hwy/detect_targets.h>

#include "base/check.hpp"
#include "kernels/numerics.hpp"

// True while the source is being compiled for a target that an instruction path uses.
#define TROUPE_SIMD_TARGET (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

// Calls `function` of the target that `path` stands for, from namespace troupe::kernels (or the
// namespace that holds the targets' namespaces). make_cpu_ops() has refused paths this CPU lacks.
#if (HWY_TARGETS & HWY_AVX3) && (HWY_TARGETS & HWY_AVX2)
#define TROUPE_SIMD_CALL(path, function, ...)                                          \
  ((path) == ::troupe::kernels::instruction_path::avx2 ? N_AVX2::function(__VA_ARGS__) \
                                                       : N_AVX3::function(__VA_ARGS__))
#else  // no instruction path on this architecture: supported_paths() is empty
#define TROUPE_SIMD_CALL(path, function, ...) TROUPE_CHECK(!"an instruction path of this CPU")
#endif
