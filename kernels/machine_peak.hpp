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
// tree or read from memory; the best of several passes. "Share of peak" always means the share of
// the L2 figure. It is a stricter measure than a library's best product: where it gave 2,100
// GFLOP/s with one thread of AMX, oneDNN reached 910 at 512 x 4096 x 4096 and 1,140 at 512 x 1024 x
// 3072. Units: GFLOP/s. 0 where the path cannot run. `path` must be one of
// supported_paths(bfloat16). Cost: about 50 ms.
[[nodiscard]] double measure_matmul_peak(thread_pool& pool, instruction_path path, dtype weights,
                                         operand_home home = operand_home::l2);

}  // namespace troupe::kernels
