#include "kernels/matmul/matmul.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"

namespace troupe::kernels {

namespace matmul_detail {

kernel kernel_of(instruction_path path, dtype type) {
  if (type == dtype::bfloat16 && path == instruction_path::amx_bf16) {
    return {amx_panel(), input_form::bfloat16_tiles};
  }
  if (type == dtype::bfloat16 && path == instruction_path::avx512_bf16) {
    return {avx512_bf16_panel(), input_form::bfloat16_rows};
  }
  return {fma_panel(path, type), input_form::float32_rows};
}

}  // namespace matmul_detail

matmul_scratch::matmul_scratch() : memory_(std::make_unique<memory>()) {}
matmul_scratch::matmul_scratch(matmul_scratch&&) noexcept = default;
matmul_scratch& matmul_scratch::operator=(matmul_scratch&&) noexcept = default;
matmul_scratch::~matmul_scratch() = default;

namespace {

using namespace matmul_detail;

// Bounds the scratch memory of a long prompt; the weights are read again for each such slab.
constexpr std::int64_t slab_rows = 512;
// One chunk of rows, as the kernel reads it, stays in a 2 MiB L2 beside sums and weights.
constexpr std::int64_t chunk_bytes = std::int64_t{1} << 20;
constexpr std::int64_t chunk_rows_min = 32;
// Weights of a panel stay in a 48 KiB L1 while all rows of the chunk pass.
constexpr std::int64_t panel_bytes = std::int64_t{32} << 10;
constexpr std::int64_t decode_rows = 16;
constexpr std::int64_t levels_max = 4;  // partial sums that 8 runs keep at once in the tree

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

void ensure(buffer& memory, std::int64_t bytes) {
  if (memory.size() >= static_cast<std::size_t>(bytes)) return;
  memory = buffer();
  auto grown = buffer::allocate(static_cast<std::size_t>(bytes), "scratch of the matrix product");
  TROUPE_CHECK(grown.has_value());  // the process is out of address space
  memory = std::move(*grown);
}

// What all tasks of a call share.
struct plan {
  plan(const matmul_args& call, kernel kernel_of_path) : args(call), with(kernel_of_path) {}

  const matmul_args& args;
  kernel with;
  std::int64_t step_inputs = 1;    // inputs of one step of the kernel
  std::int64_t element_bytes = 4;  // of the input in the kernel's form
  panel prototype;                 // input, strides
  std::int64_t first_row = 0;      // of the slab
  std::int64_t rows = 0;
  std::int64_t chunk_rows = 0;
  std::int64_t group_blocks = 1;
  std::int64_t groups = 0;
  float* sums = nullptr;
  std::int64_t sums_per_level = 0;
};

void check(const matmul_args& args) {
  TROUPE_CHECK(args.weights != nullptr);
  const packed_tensor& weights = *args.weights;
  TROUPE_CHECK(!weights.run_ends().empty());
  TROUPE_CHECK(args.input.type == weights.type() && args.output.type == dtype::float32);
  TROUPE_CHECK(args.input.columns() == weights.inputs());
  TROUPE_CHECK(args.output.columns() == weights.outputs());
  TROUPE_CHECK(args.output.rows() == args.input.rows());
  TROUPE_CHECK(args.bias.empty() ||
               args.bias.size() == static_cast<std::size_t>(weights.outputs()));
}

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

// The input in the kernel's form: the caller's own rows where they serve, else a packed copy.
void prepare_input(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  const tensor_view& input = plan.args.input;
  const packed_tensor& weights = *plan.args.weights;
  panel& form = plan.prototype;
  const bool tiles = plan.with.form == input_form::bfloat16_tiles;
  const bool widen = plan.with.form == input_form::float32_rows && input.type == dtype::bfloat16;
  // Long columns of tiles read straight from rows would collide in L1, so only few rows are.
  const bool as_given = input.type == dtype::float32 ||
                        (!widen && whole_steps(weights) && (!tiles || plan.rows <= decode_rows));
  if (as_given) {
    form.input = row_slice(input, plan.first_row, plan.rows).data.address;
    form.input_row_bytes = input.row_stride * plan.element_bytes;
    form.input_step_bytes = plan.step_inputs * plan.element_bytes;
    form.input_tile_bytes = tile_outputs * form.input_row_bytes;
    return;
  }
  const std::int64_t row_bytes = weights.padded_inputs() * plan.element_bytes;
  const std::int64_t row_tiles = divide_up(plan.rows, tile_outputs);
  ensure(memory.input, row_tiles * tile_outputs * row_bytes);
  std::byte* const packed = memory.input.data();
  form.input = packed;
  form.input_tile_bytes = tile_outputs * row_bytes;
  form.input_row_bytes = tiles ? tile_inputs * 2 : row_bytes;
  form.input_step_bytes = tile_inputs * plan.element_bytes * (tiles ? tile_outputs : 1);
  pool.parallel_for(row_tiles, [&](std::int64_t tile, int) {
    const std::int64_t end = std::min(plan.rows, (tile + 1) * tile_outputs);
    for (std::int64_t row = tile * tile_outputs; row < end; ++row) {
      pack_row(plan, row,
               packed + tile * form.input_tile_bytes + row % tile_outputs * form.input_row_bytes);
    }
  });
}

// The products of one run, panel by panel, into `work.sums`. Moves `work` to the next run.
void sum_run(const plan& plan, std::int64_t steps, panel& work) {
  if (steps == 0) {
    std::fill_n(work.sums, work.rows * work.sums_stride, 0.0F);
    return;
  }
  const std::int64_t step_bytes = plan.step_inputs * tile_outputs *
                                  static_cast<std::int64_t>(size_of(plan.args.weights->type()));
  const std::int64_t steps_max =
      plan.rows <= decode_rows && plan.with.form == input_form::bfloat16_tiles
          ? steps
          : std::max<std::int64_t>(1, panel_bytes / step_bytes / work.blocks);
  work.resume = false;
  for (std::int64_t done = 0; done < steps; done += work.steps) {
    work.steps = std::min(steps_max, steps - done);
    plan.with.run(work);
    work.input += work.steps * work.input_step_bytes;
    work.weights += work.steps * step_bytes;
    work.resume = true;
  }
}

void add_to(float* left, const float* right, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) left[i] += right[i];
}

void write_outputs(const plan& plan, const panel& work, std::int64_t first_row,
                   std::int64_t first_output) {
  const std::int64_t count =
      std::min(work.blocks * tile_outputs, plan.args.output.columns() - first_output);
  for (std::int64_t row = 0; row < work.rows; ++row) {
    const float* from = work.sums + row * work.sums_stride;
    float* to = plan.args.output.row<float>(plan.first_row + first_row + row) + first_output;
    if (plan.args.bias.empty()) {
      std::copy_n(from, count, to);
      continue;
    }
    const float* bias = plan.args.bias.data() + first_output;
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i] + bias[i];
  }
}

// One chunk of rows by one group of blocks. Runs are added as a binary counter counts: after run r,
// one partial sum for each one bit of r + 1.
void run_task(const plan& plan, std::int64_t index, int thread) {
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t first_block = index % plan.groups * plan.group_blocks;
  const std::int64_t first_row = index / plan.groups * plan.chunk_rows;
  const std::int64_t blocks_all = divide_up(weights.outputs(), tile_outputs);
  panel work = plan.prototype;
  work.input += first_row / tile_outputs * work.input_tile_bytes;
  work.rows = std::min(plan.chunk_rows, plan.rows - first_row);
  work.weights = weights.block(first_block);
  work.block_bytes = static_cast<std::int64_t>(weights.bytes()) / blocks_all;
  work.blocks = std::min(plan.group_blocks, blocks_all - first_block);
  work.sums_stride = work.blocks * tile_outputs;
  float* const sums = plan.sums + thread * levels_max * plan.sums_per_level;
  std::int64_t begin = 0;
  std::int64_t depth = 0;
  unsigned runs_done = 0;
  for (const std::int64_t end : weights.run_ends()) {
    work.sums = sums + depth * plan.sums_per_level;
    sum_run(plan, divide_up(end - begin, plan.step_inputs), work);
    begin = end;
    for (unsigned bits = runs_done; (bits & 1U) != 0; bits >>= 1) {
      --depth;
      float* const left = sums + depth * plan.sums_per_level;
      add_to(left, left + plan.sums_per_level, work.rows * work.sums_stride);
    }
    ++depth;
    ++runs_done;
  }
  work.sums = sums;
  write_outputs(plan, work, first_row, first_block * tile_outputs);
}

// Groups as wide as the kernels take, but enough of them that the threads end together.
std::int64_t choose_group(std::int64_t blocks, std::int64_t chunks, int threads) {
  constexpr std::int64_t tasks_per_thread = 8;
  std::int64_t group = block_max;
  while (group > 1 && divide_up(blocks, group) * chunks < tasks_per_thread * threads) group /= 2;
  return group;
}

void multiply_slab(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  prepare_input(plan, pool, memory);
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t row_bytes =
      std::max<std::int64_t>(1, weights.padded_inputs()) * plan.element_bytes;
  plan.chunk_rows = std::clamp(chunk_bytes / row_bytes / chunk_rows_min * chunk_rows_min,
                               chunk_rows_min, slab_rows);
  const std::int64_t chunks = divide_up(plan.rows, plan.chunk_rows);
  const std::int64_t blocks = divide_up(weights.outputs(), tile_outputs);
  plan.group_blocks = choose_group(blocks, chunks, pool.threads());
  plan.groups = divide_up(blocks, plan.group_blocks);
  plan.sums_per_level = std::min(plan.rows, plan.chunk_rows) * plan.group_blocks * tile_outputs;
  ensure(memory.sums, pool.threads() * levels_max * plan.sums_per_level * 4);
  plan.sums = memory.sums.as<float>().data();
  pool.parallel_for(plan.groups * chunks,
                    [&](std::int64_t index, int thread) { run_task(plan, index, thread); });
}

}  // namespace

void matmul(instruction_path path, thread_pool& pool, const matmul_args& args,
            matmul_scratch& scratch) {
  check(args);
  if (args.weights->outputs() == 0) return;
  plan plan(args, kernel_of(path, args.weights->type()));
  TROUPE_CHECK(plan.with.run != nullptr);
  if (args.weights->type() == dtype::bfloat16) plan.step_inputs = tile_inputs;
  plan.element_bytes = plan.with.form == input_form::float32_rows ? 4 : 2;
  for (; plan.first_row < args.input.rows(); plan.first_row += slab_rows) {
    plan.rows = std::min(slab_rows, args.input.rows() - plan.first_row);
    multiply_slab(plan, pool, scratch.parts());
  }
}

void matmul(instruction_path path, thread_pool& pool, const matmul_args& args) {
  matmul_scratch scratch;
  matmul(path, pool, args, scratch);
}

}  // namespace troupe::kernels
