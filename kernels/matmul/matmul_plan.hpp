// What all tasks of one product share, and its input in the kernel's form.
#pragma once

#include "kernels/matmul/matmul_work.hpp"

namespace troupe::kernels::matmul_detail {

// Rows that only stream weights past themselves: one tile.
inline constexpr std::int64_t decode_rows = 16;

struct plan {
  plan(const matmul_args& call, kernel kernel_of_path) : args(call), with(kernel_of_path) {}

  const matmul_args& args;
  kernel with;
  panel prototype;             // input, strides
  std::int64_t first_row = 0;  // of the slab
  std::int64_t rows = 0;
  std::int64_t chunk_rows = 0;
  std::int64_t group_blocks = 1;
  int threads = 1;
  std::int64_t groups = 0;
  float* sums = nullptr;
  std::int64_t sums_per_level = 0;
  // Of quantised input.
  const float* row_scales = nullptr;          // [rows][runs]
  const std::int32_t* row_offsets = nullptr;  // [rows][runs]
};

// Grows `memory` to at least `bytes`.
void ensure(buffer& memory, std::int64_t bytes);

// Fills the plan's input for its slab: the caller's own rows where they serve, else a packed or
// quantised copy.
void prepare_input(plan& plan, thread_pool& pool, matmul_scratch::memory& memory);

}  // namespace troupe::kernels::matmul_detail
