#include "models/weight_reader.hpp"

#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/check.hpp"

namespace troupe::models {
namespace {

using kernels::source_dtype;

source_dtype source_of(stored_dtype type) {
  switch (type) {
    case stored_dtype::float32:
      return source_dtype::float32;
    case stored_dtype::float16:
      return source_dtype::float16;
    case stored_dtype::bfloat16:
      return source_dtype::bfloat16;
    case stored_dtype::other:
      break;
  }
  TROUPE_CHECK(!"checked() refuses other dtypes");
  return source_dtype::float32;
}

std::string describe(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

float widen_float16(std::uint16_t half) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
  const std::uint32_t exponent = (half >> 10U) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return sign == 0 ? magnitude : -magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (wide << 23U) | (mantissa << 13U));
}

float widen(const std::byte* from, stored_dtype type) noexcept {
  if (type == stored_dtype::float32) {
    float value = 0;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof(bits));
  if (type == stored_dtype::float16) return widen_float16(bits);
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

}  // namespace

weight_reader::weight_reader(weight_reader_options options) : options_(std::move(options)) {
  TROUPE_CHECK(options_.files != nullptr || (options_.plan_only && options_.asked != nullptr));
  TROUPE_CHECK(options_.plan_only || options_.pool != nullptr);
  if (options_.pool != nullptr) staging_.resize(static_cast<std::size_t>(options_.pool->threads()));
}

base::result<const tensor_info*> weight_reader::checked(
    const std::string& name, const std::vector<std::int64_t>& shape) const {
  if (options_.files == nullptr) {
    options_.asked->push_back({.name = name, .shape = shape});
    return nullptr;
  }
  TROUPE_TRY(found, options_.files->find(name));
  if (found->shape != shape) {
    return base::fail(base::error_code::invalid_argument, "models",
                      "tensor " + name + " has shape " + describe(found->shape) +
                          " but config.json makes it " + describe(shape));
  }
  if (found->dtype == stored_dtype::other) {
    return base::fail(base::error_code::invalid_argument, "models",
                      "tensor " + name +
                          " has an element type that is not read yet; float32, float16 and "
                          "bfloat16 are");
  }
  return found;
}

void weight_reader::count(std::uint64_t bytes) {
  bytes_ += bytes;
  if (options_.progress) options_.progress(bytes_);
}

base::result<void> weight_reader::tell(const std::vector<matrix_part>& parts) const {
  if (!options_.after_part) return {};
  for (const matrix_part& part : parts) TROUPE_TRY_VOID(options_.after_part(part));
  return {};
}

void weight_reader::tick(std::uint64_t bytes) noexcept {
  if (options_.vitals == nullptr) return;
  constexpr std::uint64_t each = base::rank_vitals::load_tick_bytes;
  const std::uint64_t before =
      std::atomic_ref(read_bytes_).fetch_add(bytes, std::memory_order_relaxed);
  if (before / each != (before + bytes) / each) options_.vitals->tick();
}

base::result<kernels::packed_tensor> weight_reader::matrix(const std::vector<matrix_part>& parts,
                                                           std::vector<std::int64_t> run_ends) {
  kernels::packed_shape shape{
      .outputs = 0, .run_ends = std::move(run_ends), .type = options_.type, .on = options_.on};
  for (const matrix_part& part : parts) {
    TROUPE_CHECK(part.inputs.size() == shape.run_ends.back());
    TROUPE_TRY_VOID(checked(part.name, {part.all_outputs, part.all_inputs}));
    shape.outputs += part.outputs.size();
  }
  const std::uint64_t packed_bytes = kernels::packed_tensor::packed_bytes(shape);
  if (options_.plan_only) {
    count(packed_bytes);
    TROUPE_TRY_VOID(tell(parts));
    return kernels::packed_tensor{};
  }
  TROUPE_TRY(packed, kernels::packed_tensor::allocate(std::move(shape)));
  std::int64_t first_output = 0;
  for (const matrix_part& part : parts) {
    TROUPE_TRY_VOID(pack_part(part, first_output, packed));
    first_output += part.outputs.size();
  }
  count(packed_bytes);
  TROUPE_TRY_VOID(tell(parts));
  return std::move(packed);
}

base::result<void> weight_reader::pack_part(const matrix_part& part, std::int64_t first_output,
                                            kernels::packed_tensor& into) {
  TROUPE_TRY(tensor, options_.files->find(part.name));
  const auto element = static_cast<std::int64_t>(size_of(tensor->dtype));
  const std::int64_t row_bytes = part.inputs.size() * element;
  const std::int64_t rows = part.outputs.size();
  if (row_bytes == 0 || rows == 0) return {};
  // Chunks end at blocks of 16 outputs of the packed matrix, so that no two threads share one.
  const std::int64_t block = kernels::tile_outputs;
  const auto staging = static_cast<std::int64_t>(staging_bytes_max);
  const std::int64_t chunk = std::max(block, staging / row_bytes / block * block);
  const std::int64_t skew = first_output % block;
  const std::int64_t chunks = (rows + skew + chunk - 1) / chunk;
  const bool whole_rows = part.inputs.size() == part.all_inputs;

  std::mutex failure_mutex;
  std::optional<base::error> failure;
  options_.pool->parallel_for(chunks, [&](std::int64_t index, int thread) {
    const std::int64_t begin = std::max<std::int64_t>(0, index * chunk - skew);
    const std::int64_t end = std::min(rows, (index + 1) * chunk - skew);
    auto& bytes = staging_[static_cast<std::size_t>(thread)];
    bytes.resize(static_cast<std::size_t>((end - begin) * row_bytes));
    const auto read = [&](std::int64_t row, std::span<std::byte> out) {
      const std::int64_t offset = (row * part.all_inputs + part.inputs.begin) * element;
      const auto done = options_.files->read(*tensor, static_cast<std::uint64_t>(offset), out);
      if (!done) {
        const std::scoped_lock lock(failure_mutex);
        failure = done.error();
      }
      return done.has_value();
    };
    if (whole_rows) {
      if (!read(part.outputs.begin + begin, bytes)) return;
    } else {
      for (std::int64_t row = begin; row < end; ++row) {
        const auto at = static_cast<std::size_t>((row - begin) * row_bytes);
        const std::span out(bytes.data() + at, static_cast<std::size_t>(row_bytes));
        if (!read(part.outputs.begin + row, out)) return;
      }
    }
    into.pack({.rows = bytes,
               .source = source_of(tensor->dtype),
               .first_output = first_output + begin,
               .outputs = end - begin});
    tick(bytes.size());
  });
  if (failure) return tl::unexpected(*std::move(failure));
  return {};
}

base::result<std::vector<float>> weight_reader::vector(const std::vector<vector_part>& parts) {
  std::vector<float> values;
  for (const vector_part& part : parts) {
    TROUPE_TRY(tensor, checked(part.name, {part.all_elements}));
    const auto elements = static_cast<std::size_t>(part.elements.size());
    count(elements * sizeof(float));
    if (!options_.plan_only) {
      const std::size_t element = size_of(tensor->dtype);
      std::vector<std::byte> bytes(elements * element);
      const auto offset = static_cast<std::uint64_t>(part.elements.begin) * element;
      TROUPE_TRY_VOID(options_.files->read(*tensor, offset, bytes));
      for (std::size_t i = 0; i < elements; ++i) {
        values.push_back(widen(bytes.data() + i * element, tensor->dtype));
      }
    }
    TROUPE_TRY_VOID(tell({{part.name, {0, 1}, part.elements, 1, part.all_elements}}));
  }
  return values;
}

}  // namespace troupe::models
