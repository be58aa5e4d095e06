// Between the driver (matmul.cpp) and the kernels of each instruction set: one panel of work.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/buffer.hpp"
#include "kernels/matmul/matmul.hpp"

namespace troupe::kernels::matmul_detail {

[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t value, std::int64_t by) noexcept {
  return (value + by - 1) / by;
}

// How the kernel wants its input.
enum class input_form : std::uint8_t {
  float32_rows,    // [row][input]; bfloat16 is widened
  bfloat16_rows,   // [row][input], each run padded with zeros to 32
  bfloat16_tiles,  // [16 rows][32 inputs] a KiB, likewise padded; or rows, by their stride
  int8_rows,       // quantised, each run padded with zeros to 64
  int8_tiles       // [16 rows][64 inputs] a KiB, likewise padded
};
[[nodiscard]] constexpr bool is_tiles(input_form form) noexcept {
  return form == input_form::bfloat16_tiles || form == input_form::int8_tiles;
}
[[nodiscard]] constexpr bool is_int8(input_form form) noexcept {
  return form == input_form::int8_rows || form == input_form::int8_tiles;
}
[[nodiscard]] constexpr std::int64_t element_bytes(input_form form) noexcept {
  if (form == input_form::float32_rows) return 4;
  return is_int8(form) ? 1 : 2;
}
inline constexpr std::int64_t tile_row_bytes = 64;

// target[row][16 * block + o] = (resume ? sums[same cell] : 0) + the products over `steps`. Sums
// and target are int32 for int8 weights, which are taken as code + 128.
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
  std::int64_t steps = 0;  // of 32 inputs, of 64 for integers, of one for float32 weights
  // int4 only: what each row's sum over a group of 32 inputs starts from, -8 times the inputs' sum.
  const std::int32_t* group_offsets = nullptr;
  std::int64_t group_offsets_stride = 0;
  float* sums = nullptr;  // of the panels before
  std::int64_t sums_stride = 0;
  bool resume = false;
  float* target = nullptr;  // the sums themselves, or rows of the output
  std::int64_t target_stride = 0;
};
using panel_function = void (*)(const panel&);

struct panel_kernel {
  panel_function run = nullptr;
  std::int64_t one_pass_rows = 1;  // that many rows pass the weights once, more several times
};

// to[i] = left[i] + right[i]; `to` may be `left`.
using add_function = void (*)(float* to, const float* left, const float* right, std::int64_t count);

// A run of a row of activations as int8: each is the nearest whole number to input * (127 / largest
// magnitude), ties to even. A run that holds an infinity or NaN has codes of 0 and NaN as scale.
struct quantised_run {
  std::int8_t* codes = nullptr;           // [steps][64], the last step padded with zeros
  std::int64_t step_bytes = 64;           // from one step to the next
  std::int32_t* group_offsets = nullptr;  // for int4: [steps][2]; may be null
  float scale = 0.0F;                     // largest magnitude / 127
  std::int32_t sum = 0;                   // of the codes
};
using quantise_function = void (*)(const std::uint16_t* from, std::int64_t count,
                                   quantised_run& to);

// Sums of one run to float32: int8 ((float)(sum + offset) * weight) * row, int4 (sum *
// weight) * row, where weight and row are the scales of the run.
struct run_scaling {
  const float* sums = nullptr;  // [rows][16 * blocks]; int32 of int8
  float* to = nullptr;          // may be the sums
  std::int64_t to_stride = 0;
  std::int64_t rows = 0;
  std::int64_t blocks = 0;
  const float* weight_scales = nullptr;  // [16] of the first block
  std::int64_t block_bytes = 0;          // from one block's to the next
  const float* row_scales = nullptr;
  const std::int32_t* row_offsets = nullptr;  // int8 only: -128 times the sum of the row's codes
  std::int64_t row_stride = 0;                // of both
};
using scale_function = void (*)(const run_scaling&);

struct kernel {
  panel_kernel panels;
  input_form form = input_form::float32_rows;
  add_function add = nullptr;
  quantise_function quantise = nullptr;  // integers only, as is scale
  scale_function scale = nullptr;
  std::int64_t step_inputs = 1;
  std::int64_t step_bytes = 64;  // of a block's weights
};

inline constexpr std::int64_t block_max = 4;

// The kernel that `path` means for such weights; its panels have no function where this build has
// none.
[[nodiscard]] kernel kernel_of(instruction_path path, dtype weights,
                               quantisation kind = quantisation::none);

// Without a function where this build has none.
[[nodiscard]] panel_kernel fma_panel(instruction_path path, dtype weights);
[[nodiscard]] add_function vector_add(instruction_path path);
[[nodiscard]] panel_kernel avx512_bf16_panel();
[[nodiscard]] panel_kernel amx_panel();
// Of integers. The sums are exact, so which of them computes a product changes no bit.
[[nodiscard]] quantise_function vector_quantise(instruction_path path);
[[nodiscard]] scale_function vector_scale(instruction_path path, quantisation kind);
[[nodiscard]] panel_kernel amx_int8_panel();     // for CPUs with AMX-INT8
[[nodiscard]] panel_kernel avx512_int8_panel();  // with AVX512-VNNI, as the next
[[nodiscard]] panel_kernel avx512_int4_panel();
[[nodiscard]] panel_kernel avx_vnni_panel(quantisation kind);  // with AVX-VNNI
[[nodiscard]] panel_kernel avx2_integer_panel(quantisation kind);

}  // namespace troupe::kernels::matmul_detail

namespace troupe::kernels {

struct matmul_scratch::memory {
  buffer input;   // in the kernel's form
  buffer scales;  // of quantised rows, and their offsets
  buffer sums;    // per thread
};

}  // namespace troupe::kernels
