// Between the driver (matmul.cpp) and the kernels of each instruction set: one panel of work.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/buffer.hpp"
#include "kernels/matmul/matmul.hpp"

namespace troupe::kernels::matmul_detail {

// How the kernel wants its input.
enum class input_form : std::uint8_t {
  float32_rows,   // [row][input]; bfloat16 is widened
  bfloat16_rows,  // [row][input], each run padded with zeros to 32
  bfloat16_tiles  // [16 rows][32 inputs] a KiB, likewise padded; or rows, by their stride
};

// target[row][16 * block + o] = (resume ? sums[same cell] : 0) + the products over `steps`.
struct panel {
  const std::byte* input = nullptr;  // first row, first step
  std::int64_t input_row_bytes = 0;
  std::int64_t input_step_bytes = 0;  // from one step to the next
  std::int64_t input_tile_bytes = 0;  // from 16 rows to the next 16
  std::int64_t rows = 0;
  const std::byte* weights = nullptr;  // first block, first step
  std::int64_t block_bytes = 0;
  std::int64_t blocks = 0;                  // of 16 outputs, 1 .. block_max
  const std::byte* next_weights = nullptr;  // likely the next panel's: for fetching ahead only
  std::int64_t steps = 0;                   // of 32 inputs; of one input for float32 weights
  float* sums = nullptr;                    // of the panels before
  std::int64_t sums_stride = 0;
  bool resume = false;
  float* target = nullptr;  // the sums themselves, or rows of the output
  std::int64_t target_stride = 0;
};
using panel_function = void (*)(const panel&);

// to[i] = left[i] + right[i]; `to` may be `left`.
using add_function = void (*)(float* to, const float* left, const float* right, std::int64_t count);

struct kernel {
  panel_function run = nullptr;
  input_form form = input_form::float32_rows;
  add_function add = nullptr;
};

inline constexpr std::int64_t block_max = 4;

// The kernel that `path` means for such weights; run is nullptr where this build has none.
[[nodiscard]] kernel kernel_of(instruction_path path, dtype weights);

// nullptr where this build has none.
[[nodiscard]] panel_function fma_panel(instruction_path path, dtype weights);
[[nodiscard]] add_function vector_add(instruction_path path);
[[nodiscard]] panel_function avx512_bf16_panel();
[[nodiscard]] panel_function amx_panel();

}  // namespace troupe::kernels::matmul_detail

namespace troupe::kernels {

struct matmul_scratch::memory {
  buffer input;  // in the kernel's form
  buffer sums;   // per thread
};

}  // namespace troupe::kernels
