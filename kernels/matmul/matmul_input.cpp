#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_plan.hpp"
#include "kernels/packed_integers.hpp"

namespace troupe::kernels::matmul_detail {
namespace {

// Rounded up to this, so that scratch lies in huge pages.
constexpr std::int64_t scratch_step_bytes = std::int64_t{2} << 20;
// Fewer elements are quantised sooner than another thread is woken.
constexpr std::int64_t quantise_alone_max = 8192;

// Each run of a row, behind one another, padded with zeros to a step. Tiles cut the row every 64
// bytes.
void pack_row(const plan& plan, std::int64_t row, std::byte* to) {
  const auto* from = plan.args.input.row<const std::uint16_t>(plan.first_row + row);
  std::int64_t begin = 0;
  for (const std::int64_t end : plan.args.weights->run_ends()) {
    for (; begin < end; begin += tile_inputs) {
      const std::int64_t count = std::min(tile_inputs, end - begin);
      if (plan.with.form == input_form::float32_rows) {
        auto* wide = reinterpret_cast<std::uint32_t*>(to);
        for (std::int64_t i = 0; i < count; ++i) {
          wide[i] = static_cast<std::uint32_t>(from[begin + i]) << 16;
        }
        std::fill(wide + count, wide + tile_inputs, 0U);
      } else if (count == tile_inputs) {
        std::memcpy(to, from + begin, tile_inputs * 2);
      } else {
        std::memcpy(to, from + begin, static_cast<std::size_t>(count) * 2);
        std::memset(to + count * 2, 0, static_cast<std::size_t>(tile_inputs - count) * 2);
      }
      to += plan.prototype.input_step_bytes;
    }
    begin = end;
  }
}

bool whole_steps(const packed_tensor& weights) {
  const auto whole = [](std::int64_t end) { return end % tile_inputs == 0; };
  return std::all_of(weights.run_ends().begin(), weights.run_ends().end(), whole);
}

// Where row `row` begins in the packed input.
std::byte* row_at(const panel& form, std::byte* packed, std::int64_t row) {
  return packed + row / tile_outputs * form.input_tile_bytes +
         row % tile_outputs * form.input_row_bytes;
}

// Strides of a packed input; steps of tiles are whole tiles.
void set_packed_form(plan& plan, std::int64_t step_inputs, std::byte* packed) {
  panel& form = plan.prototype;
  const bool tiles = is_tiles(plan.with.form);
  const std::int64_t element = element_bytes(plan.with.form);
  const std::int64_t row_bytes = plan.args.weights->padded_inputs() * element;
  form.input = packed;
  form.input_tile_bytes = tile_outputs * row_bytes;
  form.input_row_bytes = tiles ? tile_row_bytes : row_bytes;
  form.input_step_bytes = step_inputs * element * (tiles ? tile_outputs : 1);
}

std::byte* packed_memory(const plan& plan, matmul_scratch::memory& memory) {
  const std::int64_t row_tiles = divide_up(plan.rows, tile_outputs);
  const std::int64_t row_bytes = plan.args.weights->padded_inputs() * element_bytes(plan.with.form);
  ensure(memory.input, row_tiles * tile_outputs * row_bytes);
  return memory.input.data();
}

// Scales and offsets of quantised rows, behind one another in one piece of scratch.
struct row_figures {
  float* scales = nullptr;                // [rows][runs]
  std::int32_t* offsets = nullptr;        // [rows][runs]
  std::int32_t* group_offsets = nullptr;  // [rows][groups], or null
};

void quantise_row(const plan& plan, std::int64_t row, std::byte* to, const row_figures& figures) {
  const packed_tensor& weights = *plan.args.weights;
  const auto* from = plan.args.input.row<const std::uint16_t>(plan.first_row + row);
  std::int64_t at = row * static_cast<std::int64_t>(weights.run_ends().size());
  std::int32_t* group_offsets = figures.group_offsets;
  if (group_offsets != nullptr) group_offsets += row * plan.prototype.group_offsets_stride;
  std::int64_t begin = 0;
  for (const std::int64_t end : weights.run_ends()) {
    quantised_run run{.codes = reinterpret_cast<std::int8_t*>(to),
                      .step_bytes = plan.prototype.input_step_bytes,
                      .group_offsets = group_offsets};
    plan.with.quantise(from + begin, end - begin, run);
    figures.scales[at] = run.scale;
    figures.offsets[at] = -128 * run.sum;
    const std::int64_t steps = packing::integer_steps(end - begin);
    to += steps * run.step_bytes;
    if (group_offsets != nullptr) group_offsets += steps * 2;
    begin = end;
    ++at;
  }
}

void quantise_input(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  const packed_tensor& weights = *plan.args.weights;
  std::byte* const packed = packed_memory(plan, memory);
  set_packed_form(plan, packing::integer_step_inputs, packed);
  const auto runs = static_cast<std::int64_t>(weights.run_ends().size());
  const bool int4 = weights.kind() == quantisation::int4_groups;
  const std::int64_t groups = int4 ? weights.padded_inputs() / packing::int4_group_inputs : 0;
  ensure(memory.scales, plan.rows * (2 * runs + groups) * 4);
  row_figures figures{.scales = memory.scales.as<float>().data()};
  figures.offsets = reinterpret_cast<std::int32_t*>(figures.scales + plan.rows * runs);
  if (int4) figures.group_offsets = figures.offsets + plan.rows * runs;
  plan.row_scales = figures.scales;
  plan.row_offsets = figures.offsets;
  plan.prototype.group_offsets = figures.group_offsets;
  plan.prototype.group_offsets_stride = groups;
  const auto quantise = [&](std::int64_t row, int) {
    quantise_row(plan, row, row_at(plan.prototype, packed, row), figures);
  };
  if (plan.rows * weights.inputs() > quantise_alone_max)
    return pool.parallel_for(plan.rows, quantise);
  for (std::int64_t row = 0; row < plan.rows; ++row) quantise(row, 0);
}

}  // namespace

void ensure(buffer& memory, std::int64_t bytes) {
  if (memory.size() >= static_cast<std::size_t>(bytes)) return;
  memory = buffer();
  const std::int64_t rounded = divide_up(bytes, scratch_step_bytes) * scratch_step_bytes;
  auto grown = buffer::allocate(static_cast<std::size_t>(rounded), "scratch of the matrix product");
  TROUPE_CHECK(grown.has_value());  // the process is out of address space
  memory = std::move(*grown);
}

void prepare_input(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  if (is_int8(plan.with.form)) return quantise_input(plan, pool, memory);
  const tensor_view& input = plan.args.input;
  const bool tiles = is_tiles(plan.with.form);
  const bool widen = plan.with.form == input_form::float32_rows && input.type == dtype::bfloat16;
  // Long columns of tiles read straight from rows would collide in L1, so only few rows are.
  const bool as_given =
      input.type == dtype::float32 ||
      (!widen && whole_steps(*plan.args.weights) && (!tiles || plan.rows <= decode_rows));
  if (as_given) {
    panel& form = plan.prototype;
    const std::int64_t element = element_bytes(plan.with.form);
    form.input = row_slice(input, plan.first_row, plan.rows).data.address;
    form.input_row_bytes = input.row_stride * element;
    form.input_step_bytes = plan.with.step_inputs * element;
    form.input_tile_bytes = tile_outputs * form.input_row_bytes;
    return;
  }
  std::byte* const packed = packed_memory(plan, memory);
  set_packed_form(plan, tile_inputs, packed);
  pool.parallel_for(divide_up(plan.rows, tile_outputs), [&](std::int64_t tile, int) {
    const std::int64_t end = std::min(plan.rows, (tile + 1) * tile_outputs);
    for (std::int64_t row = tile * tile_outputs; row < end; ++row) {
      pack_row(plan, row, row_at(plan.prototype, packed, row));
    }
  });
}

}  // namespace troupe::kernels::matmul_detail
