#include "models/float8_scales.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/check.hpp"
#include "kernels/float8.hpp"
#include "models/stored_value.hpp"

namespace troupe::models {
namespace {

using kernels::float8_block;

constexpr std::string_view origin = "models";

std::int64_t blocks(std::int64_t elements) { return (elements + float8_block - 1) / float8_block; }

range blocks(range elements) {
  if (elements.size() == 0) return {};
  return {elements.begin / float8_block, blocks(elements.end)};
}

base::result<const tensor_info*> find_scales(const checkpoint& files, const matrix_part& part) {
  const matrix_part wanted = scales_of(part);
  TROUPE_TRY(found, files.find(wanted.name));
  const std::vector shape{wanted.all_outputs, wanted.all_inputs};
  if (found->shape != shape) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("tensor {} has shape {} but scales of blocks of 128 x 128 make "
                                  "it {}",
                                  wanted.name, describe(found->shape), describe(shape)));
  }
  if (found->dtype != stored_dtype::float32 && found->dtype != stored_dtype::bfloat16) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("tensor {} is {}; scales are float32 or bfloat16", wanted.name,
                                  to_string(found->dtype)));
  }
  return found;
}

// Of every code; NaN codes are refused before.
constexpr std::array<float, 256> value_of_codes() {
  std::array<float, 256> values{};
  for (std::size_t code = 0; code < values.size(); ++code) {
    values[code] = kernels::from_float8(static_cast<std::uint8_t>(code));
  }
  return values;
}
constexpr std::array<float, 256> value_of = value_of_codes();

}  // namespace

matrix_part scales_of(const matrix_part& part) {
  const bool empty = part.outputs.size() == 0 || part.inputs.size() == 0;
  return {.name = part.name + std::string(float8_scale_suffix),
          .outputs = empty ? range{} : blocks(part.outputs),
          .inputs = empty ? range{} : blocks(part.inputs),
          .all_outputs = blocks(part.all_outputs),
          .all_inputs = blocks(part.all_inputs)};
}

base::result<void> float8_scales::check(const checkpoint& files, const matrix_part& part) {
  TROUPE_TRY_VOID(find_scales(files, part));
  return {};
}

base::result<float8_scales> float8_scales::read(const checkpoint& files, const matrix_part& part) {
  TROUPE_TRY(tensor, find_scales(files, part));
  const auto count = static_cast<std::size_t>(tensor->shape[0] * tensor->shape[1]);
  const std::size_t element = size_of(tensor->dtype);
  std::vector<std::byte> bytes(count * element);
  TROUPE_TRY_VOID(files.read(*tensor, 0, bytes));
  float8_scales made;
  made.row_length_ = tensor->shape[1];
  made.values_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const float scale = widen(bytes.data() + i * element, tensor->dtype);
    if (!(scale >= 0.0F && scale <= float8_scale_max)) {  // also refuses NaN
      return base::fail(base::error_code::data_loss, origin,
                        fmt::format("tensor {} holds the scale {}, which is none: it is corrupt, "
                                    "fetch it again",
                                    tensor->name, scale));
    }
    made.values_.push_back(scale);
  }
  return made;
}

float float8_scales::at(std::int64_t row, std::int64_t column) const noexcept {
  return values_[static_cast<std::size_t>(row / float8_block * row_length_ +
                                          column / float8_block)];
}

void float8_scales::dequantise(const slice& of, std::span<float> values) const {
  TROUPE_CHECK(values.size() == of.codes.size());
  std::size_t next = 0;
  for (std::int64_t row = of.first_row; next < values.size(); ++row) {
    for (std::int64_t column = of.columns.begin; column < of.columns.end;) {
      const std::int64_t block_end = (column / float8_block + 1) * float8_block;
      const std::int64_t end = std::min(block_end, of.columns.end);
      const float scale = at(row, column);
      for (; column < end; ++column, ++next) {
        values[next] = value_of[std::to_integer<std::size_t>(of.codes[next])] * scale;
      }
    }
  }
}

}  // namespace troupe::models
