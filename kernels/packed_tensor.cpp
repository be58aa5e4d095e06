#include "kernels/packed_tensor.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/device.hpp"
#include "kernels/float8.hpp"
#include "kernels/packed_integers.hpp"
#include "kernels/packed_tensor_lines.hpp"

namespace troupe::kernels {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

struct packed_extent {
  std::int64_t padded_inputs = 0;
  std::int64_t blocks = 0;
  std::int64_t longest_run = 0;
};

// What each run's length is rounded up to.
std::int64_t run_step(const packed_shape& shape) {
  if (shape.kind == quantisation::float8_blocks) return cuda_float8_run_inputs;
  if (shape.on != nullptr) return cuda_run_inputs;
  if (is_integer(shape.kind)) return packing::integer_step_inputs;
  return shape.type == dtype::bfloat16 ? tile_inputs : 1;
}

std::int64_t element_bytes(const packed_shape& shape) {
  if (shape.kind == quantisation::float8_blocks) return 1;
  return static_cast<std::int64_t>(size_of(shape.type));
}

packed_extent extent_of(const packed_shape& shape) {
  const std::size_t runs = shape.run_ends.size();
  TROUPE_CHECK(runs <= 8 && std::has_single_bit(runs));
  TROUPE_CHECK(shape.outputs >= 0);
  packed_extent extent{.blocks = (shape.outputs + tile_outputs - 1) / tile_outputs};
  std::int64_t begin = 0;
  for (const std::int64_t end : shape.run_ends) {
    TROUPE_CHECK(end >= begin);
    extent.padded_inputs += round_up(end - begin, run_step(shape));
    extent.longest_run = std::max(extent.longest_run, end - begin);
    begin = end;
  }
  return extent;
}

// On the CPU, of 16 outputs.
std::int64_t block_bytes_of(const packed_shape& shape, std::int64_t padded_inputs) {
  if (!is_integer(shape.kind)) {
    return tile_outputs * padded_inputs * static_cast<std::int64_t>(size_of(shape.type));
  }
  const auto runs = static_cast<std::int64_t>(shape.run_ends.size());
  return padded_inputs / packing::integer_step_inputs * packing::integer_step_bytes(shape.kind) +
         runs * tile_outputs * static_cast<std::int64_t>(sizeof(float));
}

// Puts whole groups of codes in the order that the tensor cores take them in; inputs come in pairs.
void order_for_device(std::span<std::byte> codes) {
  std::array<std::byte, float8_group> group;
  for (std::size_t begin = 0; begin < codes.size(); begin += group.size()) {
    std::byte* const at = codes.data() + begin;
    std::memcpy(group.data(), at, group.size());
    for (int i = 0; i < float8_group; i += 2) {
      std::memcpy(at + float8_place(i), group.data() + i, 2);
    }
  }
}

}  // namespace

std::size_t packed_tensor::packed_bytes(const packed_shape& shape) {
  const packed_extent extent = extent_of(shape);
  if (shape.kind == quantisation::float8_blocks) {
    const std::int64_t scales = extent.blocks * (extent.padded_inputs / cuda_float8_run_inputs);
    return static_cast<std::size_t>(shape.outputs * extent.padded_inputs) +
           static_cast<std::size_t>(scales) * sizeof(float);
  }
  if (shape.on != nullptr) {
    return static_cast<std::size_t>(shape.outputs * extent.padded_inputs) * size_of(shape.type);
  }
  return static_cast<std::size_t>(extent.blocks) *
         static_cast<std::size_t>(block_bytes_of(shape, extent.padded_inputs));
}

base::result<packed_tensor> packed_tensor::allocate(packed_shape shape) {
  TROUPE_CHECK(shape.kind == quantisation::none ||
               (is_integer(shape.kind) == (shape.on == nullptr) && shape.type == dtype::bfloat16));
  const packed_extent extent = extent_of(shape);
  constexpr auto elements_max = std::numeric_limits<std::int64_t>::max() / 4 / tile_outputs;
  if (extent.blocks > 0 && extent.padded_inputs > elements_max / extent.blocks) {
    return base::fail(base::error_code::resource_exhausted, "kernels",
                      "a weight matrix of " + std::to_string(shape.outputs) + " x " +
                          std::to_string(shape.run_ends.back()) + " cannot be addressed");
  }
  if (is_integer(shape.kind) && extent.longest_run > packing::integer_run_inputs_max) {
    return base::fail(base::error_code::resource_exhausted, "kernels",
                      "a run of " + std::to_string(extent.longest_run) +
                          " inputs is longer than sums of int8 products hold (" +
                          std::to_string(packing::integer_run_inputs_max) + "): take bfloat16");
  }
  packed_tensor made;
  TROUPE_TRY(storage, allocate_on(shape.on, packed_bytes(shape), "weights"));
  made.storage_ = std::move(storage);
  made.padded_inputs_ = extent.padded_inputs;
  made.block_bytes_ = block_bytes_of(shape, extent.padded_inputs);
  made.shape_ = std::move(shape);
  return made;
}

void packed_tensor::pack(const pack_args& args) {
  TROUPE_CHECK(args.first_output >= 0 && args.outputs >= 0);
  TROUPE_CHECK(args.first_output + args.outputs <= shape_.outputs);
  const std::int64_t row_bytes = inputs() * static_cast<std::int64_t>(size_of(args.source));
  TROUPE_CHECK(args.rows.size() == static_cast<std::size_t>(args.outputs * row_bytes));
  TROUPE_CHECK((args.source == source_dtype::float8_e4m3) ==
               (shape_.kind == quantisation::float8_blocks));
  if (shape_.on != nullptr) return upload_rows(args);
  if (is_integer(shape_.kind)) return pack_integers(args);
  const std::int64_t end = args.first_output + args.outputs;
  for (std::int64_t output = args.first_output; output < end;) {
    const std::int64_t in_block = output % tile_outputs;
    const std::int64_t rows = std::min(tile_outputs - in_block, end - output);
    std::byte* to = storage_.data() + output / tile_outputs * block_bytes_;
    const std::byte* from = args.rows.data() + (output - args.first_output) * row_bytes;
    std::int64_t begin = 0;
    for (const std::int64_t run_end : shape_.run_ends) {
      to =
          packing::pack_run({.rows = from + begin * static_cast<std::int64_t>(size_of(args.source)),
                             .row_bytes = row_bytes,
                             .source = args.source,
                             .inputs = run_end - begin,
                             .first_output = in_block,
                             .outputs = rows,
                             .type = shape_.type},
                            to);
      begin = run_end;
    }
    output += rows;
  }
}

void packed_tensor::upload_rows(const pack_args& args) {
  const std::int64_t element = element_bytes(shape_);
  const std::int64_t padded_bytes = padded_inputs_ * element;
  const auto source = static_cast<std::int64_t>(size_of(args.source));
  const auto fill = [&](std::span<std::byte> staging) {
    std::byte* to = staging.data();
    for (std::int64_t row = 0; row < args.outputs; ++row) {
      const std::byte* from = args.rows.data() + row * inputs() * source;
      std::int64_t begin = 0;
      for (const std::int64_t end : shape_.run_ends) {
        const std::int64_t padded = round_up(end - begin, run_step(shape_));
        packing::copy_elements({.from = from + begin * source,
                                .source = args.source,
                                .type = shape_.type,
                                .count = end - begin},
                               to);
        std::memset(to + (end - begin) * element, 0,
                    static_cast<std::size_t>((padded - (end - begin)) * element));
        to += padded * element;
        begin = end;
      }
    }
    if (shape_.kind == quantisation::float8_blocks) order_for_device(staging);
  };
  shape_.on->upload(storage_.data() + args.first_output * padded_bytes,
                    static_cast<std::size_t>(args.outputs * padded_bytes), fill);
}

void packed_tensor::pack_scales(std::span<const float> scales) {
  TROUPE_CHECK(shape_.kind == quantisation::float8_blocks);
  TROUPE_CHECK(scales.size_bytes() == bytes() - static_cast<std::size_t>(code_bytes()));
  if (scales.empty()) return;
  shape_.on->upload(storage_.data() + code_bytes(), scales.size_bytes(),
                    [&](std::span<std::byte> staging) {
                      std::memcpy(staging.data(), scales.data(), scales.size_bytes());
                    });
}

// Rows are multiples of 128 bytes, so the scales behind them are aligned.
const float* packed_tensor::device_scales() const noexcept {
  if (shape_.kind != quantisation::float8_blocks) return nullptr;
  return reinterpret_cast<const float*>(storage_.data() + code_bytes());
}

void packed_tensor::unpack_row(std::int64_t output, std::span<float> out) const {
  TROUPE_CHECK(shape_.on == nullptr);
  TROUPE_CHECK(output >= 0 && output < shape_.outputs);
  TROUPE_CHECK(out.size() == static_cast<std::size_t>(inputs()));
  if (is_integer(shape_.kind)) return unpack_integers(output, out);
  const std::int64_t in_block = output % tile_outputs;
  const std::byte* from = block(output / tile_outputs);
  if (shape_.type == dtype::float32) {
    const auto* elements = reinterpret_cast<const float*>(from) + in_block;
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = elements[static_cast<std::int64_t>(i) * tile_outputs];
    }
    return;
  }
  const auto* pairs = reinterpret_cast<const std::uint32_t*>(from) + in_block;
  std::int64_t begin = 0;
  for (const std::int64_t end : shape_.run_ends) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t pair = pairs[(i - begin) / 2 * tile_outputs];
      const std::uint32_t bits = (i - begin) % 2 == 0 ? pair << 16 : pair & 0xFFFF0000U;
      out[static_cast<std::size_t>(i)] = std::bit_cast<float>(bits);
    }
    pairs += round_up(end - begin, tile_inputs) / 2 * tile_outputs;
    begin = end;
  }
}

}  // namespace troupe::kernels
