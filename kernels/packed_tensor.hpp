// A weight matrix in the form the matmul reads: one rank's rows and columns of W[out][in], laid out
// in tiles, its input dimension cut at the canonical runs.
//
// Layouts (no kernel ever sees a checkpoint's layout):
//   bfloat16_tiles_32x16  for each block of 16 outputs, for each run, for each 32 inputs: 1 KiB
//                         [16 input pairs][16 outputs][2], which is an AMX B tile and a row of
//                         AVX512-BF16 operands alike. Each run is padded with zeros to 32 inputs.
//   float32_columns_16    for each block of 16 outputs: [inputs][16 outputs].
//   cuda_rows             [outputs][padded inputs] in the memory of a CUDA device, each run padded
//                         with zeros to 64 inputs: a K tile of 128 bytes of bfloat16, so that a
//                         tile never holds two runs.
//   cuda_rows_float8      codes [outputs][padded inputs] in the memory of a CUDA device, each run
//                         padded with zeros to 128 inputs, every 64 in the order of float8_place();
//                         then the scales: float32 [outputs / 16 rounded up][padded inputs / 128],
//                         one for 16 outputs by 128 inputs.
//   int8_steps_64x16, int4_steps_64x16
//                         for each block of 16 outputs: for each run, steps of 64 inputs; then the
//                         scales of its runs (packed_integers.hpp).
// On the CPU outputs are padded with zeros to 16. A run may be empty.
//
//   TROUPE_TRY(w, packed_tensor::allocate({.outputs = 3072, .run_ends = {1024}, .type =
//   dtype::bfloat16})); w.pack({.rows = bytes, .source = source_dtype::bfloat16, .first_output = 0,
//   .outputs = 64, ...});
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "kernels/buffer.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

enum class layout_id : std::uint16_t {
  bfloat16_tiles_32x16 = 1,
  float32_columns_16 = 2,
  cuda_rows = 3,
  cuda_rows_float8 = 4,
  int8_steps_64x16 = 5,
  int4_steps_64x16 = 6
};

inline constexpr std::int64_t tile_outputs = 16;
inline constexpr std::int64_t tile_inputs = 32;  // bfloat16 on the CPU only
inline constexpr std::int64_t cuda_run_inputs = 64;
inline constexpr std::int64_t cuda_float8_run_inputs = 128;  // what one scale covers

class device;  // kernels/device.hpp

struct packed_shape {
  std::int64_t outputs = 0;
  std::vector<std::int64_t>
      run_ends;                  // ascending; the last is the number of inputs; 1, 2, 4 or 8 runs
  dtype type = dtype::bfloat16;  // of the input; of the weights too unless quantised
  device* on = nullptr;          // null: the CPU; borrowed, outlives the tensor
  // With bfloat16 inputs only; float8_blocks on a device, int8_runs and int4_groups on the CPU.
  quantisation kind = quantisation::none;
};

// Element type of rows handed to pack().
enum class source_dtype : std::uint8_t { float32, float16, bfloat16, float8_e4m3 };
[[nodiscard]] constexpr std::size_t size_of(source_dtype type) noexcept {
  if (type == source_dtype::float8_e4m3) return 1;
  return type == source_dtype::float32 ? 4 : 2;
}

// Whole rows (outputs) of the slice: [outputs][inputs], dense, little-endian as in safetensors.
struct pack_args {
  std::span<const std::byte> rows;
  source_dtype source = source_dtype::bfloat16;
  std::int64_t first_output = 0;
  std::int64_t outputs = 0;
};

class packed_tensor {
 public:
  packed_tensor() = default;

  // Errors: resource_exhausted (memory; a run of integers longer than integer_run_inputs_max).
  [[nodiscard]] static base::result<packed_tensor> allocate(packed_shape shape);

  // Units: bytes that allocate() would take.
  [[nodiscard]] static std::size_t packed_bytes(const packed_shape& shape);

  // Converts (to bfloat16 by rounding to nearest even; to float32 exactly; to integers as
  // packed_integers.hpp says) and lays out some rows.
  // Rows may come in any order, each once. Different rows may be packed by different threads when
  // no block of 16 outputs is shared between them. On a device the rows are there once it is
  // settled; see device::upload. float8_e4m3 rows are for float8_blocks and for nothing else.
  void pack(const pack_args& args);

  // Lays the scales of a float8_blocks matrix beside its rows. Shape: [outputs / 16 rounded
  // up][padded_inputs / 128].
  void pack_scales(std::span<const float> scales);

  // Row `output` as float32, from its tiles; integers times their scales. On the CPU only. Shape:
  // out.size() == inputs().
  void unpack_row(std::int64_t output, std::span<float> out) const;

  [[nodiscard]] std::int64_t outputs() const noexcept { return shape_.outputs; }
  [[nodiscard]] std::int64_t inputs() const noexcept {
    return shape_.run_ends.empty() ? 0 : shape_.run_ends.back();
  }
  [[nodiscard]] std::span<const std::int64_t> run_ends() const noexcept { return shape_.run_ends; }
  [[nodiscard]] dtype type() const noexcept { return shape_.type; }
  [[nodiscard]] layout_id layout() const noexcept {
    if (shape_.kind == quantisation::float8_blocks) return layout_id::cuda_rows_float8;
    if (shape_.on != nullptr) return layout_id::cuda_rows;
    if (shape_.kind == quantisation::int8_runs) return layout_id::int8_steps_64x16;
    if (shape_.kind == quantisation::int4_groups) return layout_id::int4_steps_64x16;
    return shape_.type == dtype::bfloat16 ? layout_id::bfloat16_tiles_32x16
                                          : layout_id::float32_columns_16;
  }
  [[nodiscard]] quantisation kind() const noexcept { return shape_.kind; }
  // Inputs after padding each run: the length of one output block in elements / 16.
  [[nodiscard]] std::int64_t padded_inputs() const noexcept { return padded_inputs_; }
  // The rows in the device's memory: the host may not follow it.
  [[nodiscard]] const std::byte* device_rows() const noexcept { return storage_.data(); }
  // The scales there; null unless float8_blocks.
  [[nodiscard]] const float* device_scales() const noexcept;
  // Start of the block of 16 outputs. On the CPU only.
  [[nodiscard]] const std::byte* block(std::int64_t output_block) const noexcept {
    return storage_.data() + output_block * block_bytes_;
  }
  // The scales of a block's runs: float32 [runs][16]. Integers only.
  [[nodiscard]] const float* block_scales(std::int64_t output_block) const noexcept;
  [[nodiscard]] std::int64_t block_bytes() const noexcept { return block_bytes_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return storage_.size(); }

 private:
  void upload_rows(const pack_args& args);
  void pack_integers(const pack_args& args);
  void unpack_integers(std::int64_t output, std::span<float> out) const;
  [[nodiscard]] std::int64_t code_bytes() const noexcept { return shape_.outputs * padded_inputs_; }

  packed_shape shape_;
  std::int64_t padded_inputs_ = 0;
  std::int64_t block_bytes_ = 0;
  buffer storage_;
};

}  // namespace troupe::kernels
