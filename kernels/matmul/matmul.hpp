// Products of activations with packed weights: the bulk of all work, and of all bytes read.
//
// output[row][o] = sum over inputs of input[row][i] * W[o][i] (+ bias[o])
//
// Every run of inputs is summed from zero in float32, in one order that belongs to the path; the
// runs are then added in the binary tree, an empty run as +0. Work is dealt out by outputs and
// rows, never by inputs, so neither threads nor the rows beside a row can change its result.
//   amx_bf16     tiles: 32 inputs at a time (TDPBF16PS), in ascending order
//   avx512_bf16  two inputs at a time (VDPBF16PS), in ascending order
//   avx512/avx2  fused multiply-adds, one input after the other: the same bits on both. float32
//                weights take them whatever the path, avx2's only where it is asked for.
// Integer weights have the same bits on every path. A row's run of inputs is rounded to int8 by one
// scale, a = round(x * (127 / largest)) and s = largest / 127; then a run's sum is
//   int8_runs    ((float)(sum of a * code) * weight's scale) * s
//   int4_groups  (((float)(sum of a * code over 32 inputs) * group's scale, fused onto the sum of
//                the groups before) * run's factor) * s
// where the sums of integers are exact, whatever their order.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS and VDPBF16PS.
//
//   kernels::matmul_scratch scratch;  // lives as long as the ops object
//   kernels::matmul(path, pool, {.input = x, .weights = &w, .output = y}, scratch);
#pragma once

#include <memory>

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Memory that matmul() keeps from call to call; it grows to what the largest call needed: at most
// 512 rows of input (as float32 on the avx512 and avx2 paths; as int8 where the weights are
// integers) and about 1 MiB a thread. Serves one
// call at a time.
class matmul_scratch {
 public:
  matmul_scratch();
  matmul_scratch(matmul_scratch&&) noexcept;
  matmul_scratch& operator=(matmul_scratch&&) noexcept;
  ~matmul_scratch();

  struct memory;  // matmul_work.hpp
  [[nodiscard]] memory& parts() noexcept { return *memory_; }

 private:
  std::unique_ptr<memory> memory_;
};

// Shape: as matmul_args says. Input and output rows may be strided.
// Cost: up to 16 rows the time to read the weights once; above, 2 * rows * inputs * outputs
// operations.
void matmul(instruction_path path, thread_pool& pool, const matmul_args& args,
            matmul_scratch& scratch);
void matmul(instruction_path path, thread_pool& pool, const matmul_args& args);

// The same in double, one output at a time; the weights are read back with unpack_row(). Of integer
// weights every bit as it must be, by plain loops.
void matmul_reference(const matmul_args& args);

}  // namespace troupe::kernels
