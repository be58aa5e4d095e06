// packed_tensor's rows as integers: which bytes of a block a row has, and filling them.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/packed_integers.hpp"
#include "kernels/packed_tensor.hpp"
#include "kernels/packed_tensor_lines.hpp"

namespace troupe::kernels {
namespace {

using packing::integer_line_bytes;

constexpr std::int64_t int4_lines = packing::int4_step_bytes / integer_line_bytes;

struct output_span {
  std::int64_t first = 0;  // within the block of 16
  std::int64_t count = 0;
};

// Items of `bytes` a output: those of the span, from one line of 16 into another.
void merge_line(const void* from, void* to, std::int64_t bytes, output_span of) {
  std::memcpy(static_cast<std::byte*>(to) + of.first * bytes,
              static_cast<const std::byte*>(from) + of.first * bytes,
              static_cast<std::size_t>(of.count * bytes));
}

void merge_steps(const std::byte* from, std::byte* to, std::int64_t steps, quantisation kind,
                 output_span of) {
  if (kind == quantisation::int8_runs) {
    const std::int64_t bytes = steps * packing::int8_step_bytes;
    for (std::int64_t i = 0; i < bytes; i += integer_line_bytes) {
      merge_line(from + i, to + i, 4, of);
    }
    return;
  }
  for (std::int64_t step = 0; step < steps; ++step) {
    const std::int64_t at = step * packing::int4_step_bytes;
    for (std::int64_t line = 1; line < int4_lines; ++line) {
      merge_line(from + at + line * integer_line_bytes, to + at + line * integer_line_bytes, 4, of);
    }
    const std::int64_t scales = at;
    merge_line(from + scales, to + scales, 2, of);
    merge_line(from + scales + tile_outputs * 2, to + scales + tile_outputs * 2, 2, of);
  }
}

void quantise(quantisation kind, const float* tile, std::int64_t inputs, std::byte* steps,
              float* scales) {
  if (kind == quantisation::int8_runs) return packing::quantise_int8(tile, inputs, steps, scales);
  packing::quantise_int4(tile, inputs, steps, scales);
}

}  // namespace

const float* packed_tensor::block_scales(std::int64_t output_block) const noexcept {
  const std::int64_t steps = packing::integer_steps(padded_inputs_);
  return reinterpret_cast<const float*>(block(output_block) +
                                        steps * packing::integer_step_bytes(shape_.kind));
}

// A run of a block at a time: as float32 first, then as integers, of which the given rows' are
// taken over.
void packed_tensor::pack_integers(const pack_args& args) {
  const auto source = static_cast<std::int64_t>(size_of(args.source));
  const std::int64_t row_bytes = inputs() * source;
  const std::int64_t step_bytes = packing::integer_step_bytes(shape_.kind);
  std::vector<float> wide(static_cast<std::size_t>(inputs() * tile_outputs));
  std::vector<std::byte> steps(static_cast<std::size_t>(block_bytes_));
  alignas(64) float scales[tile_outputs];
  const std::int64_t end = args.first_output + args.outputs;
  for (std::int64_t output = args.first_output; output < end;) {
    const output_span of{output % tile_outputs,
                         std::min(tile_outputs - output % tile_outputs, end - output)};
    const std::byte* from = args.rows.data() + (output - args.first_output) * row_bytes;
    std::byte* to = storage_.data() + output / tile_outputs * block_bytes_;
    auto* scales_to = const_cast<float*>(block_scales(output / tile_outputs));
    std::int64_t begin = 0;
    for (const std::int64_t run_end : shape_.run_ends) {
      packing::pack_run({.rows = from + begin * source,
                         .row_bytes = row_bytes,
                         .source = args.source,
                         .inputs = run_end - begin,
                         .first_output = of.first,
                         .outputs = of.count,
                         .type = dtype::float32},
                        reinterpret_cast<std::byte*>(wide.data()));
      quantise(shape_.kind, wide.data(), run_end - begin, steps.data(), scales);
      const std::int64_t run_steps = packing::integer_steps(run_end - begin);
      merge_steps(steps.data(), to, run_steps, shape_.kind, of);
      merge_line(scales, scales_to, sizeof(float), of);
      to += run_steps * step_bytes;
      scales_to += tile_outputs;
      begin = run_end;
    }
    output += of.count;
  }
}

void packed_tensor::unpack_integers(std::int64_t output, std::span<float> out) const {
  const std::int64_t in_block = output % tile_outputs;
  const std::byte* steps = block(output / tile_outputs);
  const float* scales = block_scales(output / tile_outputs) + in_block;
  std::int64_t begin = 0;
  for (const std::int64_t end : shape_.run_ends) {
    for (std::int64_t i = begin; i < end; ++i) {
      float& value = out[static_cast<std::size_t>(i)];
      if (shape_.kind == quantisation::int8_runs) {
        value = static_cast<float>(packing::int8_code(steps, i - begin, in_block)) * *scales;
      } else {
        value = static_cast<float>(packing::int4_code(steps, i - begin, in_block)) *
                packing::int4_scale(steps, i - begin, in_block) * *scales;
      }
    }
    steps += packing::integer_steps(end - begin) * packing::integer_step_bytes(shape_.kind);
    scales += tile_outputs;
    begin = end;
  }
}

}  // namespace troupe::kernels
