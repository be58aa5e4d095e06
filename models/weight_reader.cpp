#include "models/weight_reader.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include "base/check.hpp"
#include "kernels/float8.hpp"
#include "models/stored_value.hpp"

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
    case stored_dtype::float8_e4m3:
      return source_dtype::float8_e4m3;
    case stored_dtype::other:
      break;
  }
  TROUPE_CHECK(!"checked() refuses other dtypes");
  return source_dtype::float32;
}

// Whether every segment of 128 inputs and group of 16 outputs of every rank has one scale, and a
// row of the batch whole pieces of 16 bytes.
bool keeps_float8(const matrix_cuts& cuts) {
  constexpr std::int64_t piece = 8;
  for (int run = 0; run < canonical_runs && cuts.inputs.size > 0; ++run) {
    const range columns = cuts.inputs.run(run);
    if (columns.size() > 0 && columns.begin % kernels::float8_block != 0) return false;
    if (columns.end % piece != 0) return false;
  }
  return cuts.output_unit % kernels::tile_outputs == 0;
}

// Appends a part's scales as packed: one for 16 outputs and 128 inputs of a run.
void add_scales(const matrix_part& part, const float8_scales& of,
                const kernels::packed_tensor& packed, std::vector<float>& scales) {
  TROUPE_CHECK(part.outputs.begin % kernels::tile_outputs == 0);
  for (std::int64_t row = part.outputs.begin; row < part.outputs.end;
       row += kernels::tile_outputs) {
    std::int64_t begin = 0;
    for (const std::int64_t end : packed.run_ends()) {
      TROUPE_CHECK(begin == end || (part.inputs.begin + begin) % kernels::float8_block == 0);
      for (; begin < end; begin += kernels::float8_block) {
        scales.push_back(of.at(row, part.inputs.begin + begin));
      }
      begin = end;
    }
  }
}

base::result<void> check_codes(const tensor_info& tensor, std::span<const std::byte> codes) {
  if (!kernels::has_float8_nan(codes)) return {};
  return base::fail(
      base::error_code::data_loss, "models",
      "tensor " + tensor.name + " holds the code of NaN: it is corrupt, fetch it again");
}

}  // namespace

// A part on its way into the packed matrix.
struct weight_reader::packing {
  const matrix_part& part;
  const tensor_info& tensor;
  std::int64_t first_output = 0;        // of the packed matrix
  std::optional<float8_scales> scales;  // of float8_e4m3

  // Units: bytes of staging for one element.
  [[nodiscard]] std::int64_t staged_element_bytes(const kernels::packed_tensor& into) const {
    const auto stored = static_cast<std::int64_t>(size_of(tensor.dtype));
    const bool dequantised = scales && into.kind() != kernels::quantisation::float8_blocks;
    return stored + (dequantised ? static_cast<std::int64_t>(sizeof(float)) : 0);
  }
};

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
                          " has an element type that is not read yet; float32, float16, bfloat16 "
                          "and float8_e4m3 are");
  }
  if (found->dtype == stored_dtype::float8_e4m3 && !takes_float8_) {
    return base::fail(base::error_code::invalid_argument, "models",
                      "tensor " + name +
                          " is float8_e4m3 but config.json has no quantization_config that says "
                          "how it is scaled: take config.json from where the weights are from");
  }
  if (found->dtype == stored_dtype::float8_e4m3 && shape.size() != 2) {
    return base::fail(base::error_code::invalid_argument, "models",
                      "tensor " + name + " is float8_e4m3, which only matrices may be");
  }
  return found;
}

void weight_reader::count(std::uint64_t bytes) {
  bytes_ += bytes;
  if (options_.progress) options_.progress(bytes_);
}

base::result<void> weight_reader::tell(const std::vector<matrix_part>& parts) const {
  if (!options_.after_part) return {};
  for (const matrix_part& part : parts) {
    TROUPE_TRY_VOID(options_.after_part(part));
    if (options_.files == nullptr) continue;
    TROUPE_TRY(found, options_.files->find(part.name));
    if (found->dtype == stored_dtype::float8_e4m3) {
      TROUPE_TRY_VOID(options_.after_part(scales_of(part)));
    }
  }
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
                                                           std::vector<std::int64_t> run_ends,
                                                           const std::optional<matrix_cuts>& cuts) {
  TROUPE_TRY(kind, kind_of(parts, cuts));
  kernels::packed_shape shape{.outputs = 0,
                              .run_ends = std::move(run_ends),
                              .type = options_.type,
                              .on = options_.on,
                              .kind = kind};
  for (const matrix_part& part : parts) {
    TROUPE_CHECK(part.inputs.size() == shape.run_ends.back());
    shape.outputs += part.outputs.size();
  }
  const std::uint64_t packed_bytes = kernels::packed_tensor::packed_bytes(shape);
  kernels::packed_tensor packed;
  if (!options_.plan_only) {
    TROUPE_TRY(made, pack_parts(parts, std::move(shape)));
    packed = std::move(made);
  }
  count(packed_bytes);
  TROUPE_TRY_VOID(tell(parts));
  return packed;
}

// Checks the parts, with their scales where they have some.
base::result<kernels::quantisation> weight_reader::kind_of(const std::vector<matrix_part>& parts,
                                                           const std::optional<matrix_cuts>& cuts) {
  std::size_t float8 = 0;
  for (const matrix_part& part : parts) {
    TROUPE_TRY(found, checked(part.name, {part.all_outputs, part.all_inputs}));
    if (found == nullptr || found->dtype != stored_dtype::float8_e4m3) continue;
    TROUPE_TRY_VOID(float8_scales::check(*options_.files, part));
    ++float8;
  }
  const bool on_device = options_.on != nullptr || options_.plan_for_device;
  if (is_integer(options_.round_to)) {
    TROUPE_CHECK(!on_device && options_.type == kernels::dtype::bfloat16);
    return cuts ? options_.round_to : kernels::quantisation::int8_runs;
  }
  if (float8 == 0 || !cuts || !on_device || options_.type != kernels::dtype::bfloat16) {
    return kernels::quantisation::none;
  }
  if (float8 == parts.size() && keeps_float8(*cuts)) return kernels::quantisation::float8_blocks;
  dequantised_.push_back(parts.front().name);
  return kernels::quantisation::none;
}

std::string weight_reader::why_dequantised() const {
  if (dequantised_.empty()) return {};
  return std::to_string(dequantised_.size()) +
         " matrices stored as float8_e4m3 are bfloat16 on the device: parts of them are stored "
         "otherwise, or they are cut elsewhere than at multiples of 128 inputs and 16 outputs: " +
         dequantised_.front() + (dequantised_.size() == 1 ? "" : ", ...");
}

base::result<kernels::packed_tensor> weight_reader::pack_parts(
    const std::vector<matrix_part>& parts, kernels::packed_shape shape) {
  const bool keeps = shape.kind == kernels::quantisation::float8_blocks;
  TROUPE_TRY(packed, kernels::packed_tensor::allocate(std::move(shape)));
  std::vector<float> scales;
  std::int64_t first_output = 0;
  for (const matrix_part& part : parts) {
    TROUPE_TRY(tensor, options_.files->find(part.name));
    packing of{.part = part, .tensor = *tensor, .first_output = first_output, .scales = {}};
    if (tensor->dtype == stored_dtype::float8_e4m3) {
      TROUPE_TRY(read, float8_scales::read(*options_.files, part));
      of.scales = std::move(read);
    }
    if (keeps) add_scales(part, *of.scales, packed, scales);
    TROUPE_TRY_VOID(pack_part(of, packed));
    first_output += part.outputs.size();
  }
  if (keeps) packed.pack_scales(scales);
  return std::move(packed);
}

base::result<void> weight_reader::pack_part(const packing& of, kernels::packed_tensor& into) {
  const matrix_part& part = of.part;
  const std::int64_t rows = part.outputs.size();
  if (part.inputs.size() == 0 || rows == 0) return {};
  // Chunks end at blocks of 16 outputs of the packed matrix, so that no two threads share one.
  const std::int64_t block = kernels::tile_outputs;
  const auto staged = static_cast<std::int64_t>(staging_bytes_max);
  const std::int64_t row_bytes = part.inputs.size() * of.staged_element_bytes(into);
  const std::int64_t chunk = std::max(block, staged / row_bytes / block * block);
  const std::int64_t skew = of.first_output % block;
  const std::int64_t chunks = (rows + skew + chunk - 1) / chunk;

  std::mutex failure_mutex;
  std::optional<base::error> failure;
  options_.pool->parallel_for(chunks, [&](std::int64_t index, int thread) {
    const range chunk_rows{std::max<std::int64_t>(0, index * chunk - skew),
                           std::min(rows, (index + 1) * chunk - skew)};
    auto done = pack_rows(of, chunk_rows, staging_[static_cast<std::size_t>(thread)], into);
    if (done) return;
    const std::scoped_lock lock(failure_mutex);
    failure = std::move(done).error();
  });
  if (failure) return tl::unexpected(*std::move(failure));
  return {};
}

// `rows` count from the part's first.
base::result<void> weight_reader::pack_rows(const packing& of, range rows, staging& through,
                                            kernels::packed_tensor& into) {
  const matrix_part& part = of.part;
  const auto element = static_cast<std::int64_t>(size_of(of.tensor.dtype));
  const std::int64_t row_bytes = part.inputs.size() * element;
  through.stored.resize(static_cast<std::size_t>(rows.size() * row_bytes));
  const bool whole_rows = part.inputs.size() == part.all_inputs;
  const std::int64_t reads = whole_rows ? 1 : rows.size();
  const auto read_bytes = static_cast<std::size_t>(rows.size() / reads * row_bytes);
  for (std::int64_t i = 0; i < reads; ++i) {
    const std::int64_t row = part.outputs.begin + rows.begin + i;
    const std::int64_t offset = (row * part.all_inputs + part.inputs.begin) * element;
    const std::span out(through.stored.data() + static_cast<std::size_t>(i) * read_bytes,
                        read_bytes);
    TROUPE_TRY_VOID(options_.files->read(of.tensor, static_cast<std::uint64_t>(offset), out));
  }
  std::span<const std::byte> bytes = through.stored;
  source_dtype source = source_of(of.tensor.dtype);
  if (of.scales) {
    TROUPE_TRY_VOID(check_codes(of.tensor, bytes));
    if (into.kind() != kernels::quantisation::float8_blocks) {
      through.values.resize(bytes.size());
      of.scales->dequantise(
          {.codes = bytes, .first_row = part.outputs.begin + rows.begin, .columns = part.inputs},
          through.values);
      bytes = std::as_bytes(std::span(through.values));
      source = source_dtype::float32;
    }
  }
  into.pack({.rows = bytes,
             .source = source,
             .first_output = of.first_output + rows.begin,
             .outputs = rows.size()});
  tick(through.stored.size());
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
