// The inner part of packed_tensor::pack(): rows of a checkpoint into 1 KiB tiles.
//
// Both layouts are the same picture: 16 rows, each cut into lines of 64 bytes (32 bfloat16 or 16
// float32), 16 lines transposed as a matrix of 32-bit words. Rows may start at any byte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_tensor.hpp"

namespace troupe::kernels::packing {

// One run of some rows of one block of 16 outputs.
struct run_rows {
  const std::byte* rows = nullptr;  // the first row, at the run's first input
  std::int64_t row_bytes = 0;       // from row to row
  source_dtype source = source_dtype::bfloat16;
  std::int64_t inputs = 0;
  std::int64_t first_output = 0;  // within the block
  std::int64_t outputs = 0;       // 1 .. 16 - first_output
  dtype type = dtype::bfloat16;
};

// Writes the rows' words of the run's tiles, zeros behind the last input; leaves the other rows'
// words alone. Returns where the next run starts.
std::byte* pack_run(const run_rows& run, std::byte* to);

// Some consecutive elements as `type`: exact, or rounded to nearest even; float8_e4m3 as it is.
struct element_run {
  const std::byte* from = nullptr;  // may start at any byte
  source_dtype source = source_dtype::bfloat16;
  dtype type = dtype::bfloat16;
  std::int64_t count = 0;
};
void copy_elements(const element_run& run, std::byte* to);

}  // namespace troupe::kernels::packing
