// What this machine can do at best, measured here and now: the denominators of every share of peak.
//
// Figures move with the clock, with other programs and with a hypervisor's other guests. Compare
// only what was measured in the same run, and take the best of several.
//
//   kernels::thread_pool pool({.threads = 2});
//   const double gbytes = kernels::measure_read_bandwidth(pool);
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Reads a buffer larger than the caches with all threads of the pool, each in runs of 1 MiB; the
// best of several passes. Decoding one sequence cannot be faster than its weights at this rate.
// Units: GB/s (10^9 bytes). 0 when the memory cannot be had.
// Cost: 512 MiB of memory and about a second.
[[nodiscard]] double measure_read_bandwidth(thread_pool& pool);

// Where the operands of measure_matmul_peak() lie.
enum class operand_home : std::uint8_t {
  l2,  // weights and input do not fit L1: what a matrix product can sustain
  l1,  // the bare rate of the instructions, for information
};

// The rate of the path's inner kernel on all threads at once, when nothing is packed, summed in a
// tree or read from memory; the best of several passes: what the instructions could do, and the
// denominator of the kernels' benchmarks (L2). A whole product is far from it: where this gave
// 1,890 GFLOP/s with one thread of AMX, oneDNN had reached 874 at 512 x 4096 x 4096.
// Units: GFLOP/s. 0 where the path cannot run. `path` must be one of supported_paths(bfloat16).
// Cost: about 50 ms.
// `kind`: none or int8_runs, whose instructions int4 takes too.
[[nodiscard]] double measure_matmul_peak(thread_pool& pool, instruction_path path, dtype weights,
                                         quantisation kind = quantisation::none,
                                         operand_home home = operand_home::l2);

// The rate of one whole product, 512 x 4096 x 4096, as a model would call it: packing the input,
// weights from the shared cache or memory, results written. Best of several. The usual yardstick
// of libraries, and the denominator of `troupe bench`'s prefill share.
// Units: GFLOP/s. 0 where the path cannot run or the memory cannot be had.
// Cost: 50 MiB (bfloat16) and about a second.
[[nodiscard]] double measure_product_peak(thread_pool& pool, instruction_path path, dtype type,
                                          quantisation kind = quantisation::none);

}  // namespace troupe::kernels
