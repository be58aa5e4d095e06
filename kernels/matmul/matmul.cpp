#include "kernels/matmul/matmul.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/matmul/matmul_work.hpp"

namespace troupe::kernels {

namespace matmul_detail {

kernel kernel_of(instruction_path path, dtype type) {
  if (type == dtype::bfloat16 && path == instruction_path::amx_bf16) {
    return {amx_panel(), input_form::bfloat16_tiles, vector_add(path)};
  }
  if (type == dtype::bfloat16 && path == instruction_path::avx512_bf16) {
    return {avx512_bf16_panel(), input_form::bfloat16_rows, vector_add(path)};
  }
  return {fma_panel(path, type), input_form::float32_rows, vector_add(path)};
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
// A chunk of rows, as the kernel reads it, stays in a 2 MiB L2 beside sums and weights. Measured at
// 512 rows by 4096 x 4096: half as much is 10 % slower, 1.5 MiB no faster.
constexpr std::int64_t chunk_bytes = std::int64_t{1} << 20;
constexpr std::int64_t chunk_rows_step = 32;
// Weights of a panel stay in a 48 KiB L1, beside the input that passes, until all rows of the chunk
// have passed. Measured at 512 rows: 16 KiB gives 5 to 10 % more than 32 KiB.
constexpr std::int64_t panel_bytes = std::int64_t{16} << 10;
constexpr std::int64_t decode_rows = 16;
// Rounded up to this, so that scratch lies in huge pages.
constexpr std::int64_t scratch_step_bytes = std::int64_t{2} << 20;
constexpr std::int64_t tasks_per_thread = 8;
constexpr std::int64_t levels_max = 4;  // partial sums that 8 runs keep at once in the tree

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

void ensure(buffer& memory, std::int64_t bytes) {
  if (memory.size() >= static_cast<std::size_t>(bytes)) return;
  memory = buffer();
  const std::int64_t rounded = divide_up(bytes, scratch_step_bytes) * scratch_step_bytes;
  auto grown = buffer::allocate(static_cast<std::size_t>(rounded), "scratch of the matrix product");
  TROUPE_CHECK(grown.has_value());  // the process is out of address space
  memory = std::move(*grown);
}

struct float_rows {
  float* first = nullptr;
  std::int64_t stride = 0;
};

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
  int threads = 1;
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

// One chunk of rows by one group of blocks.
struct task {
  panel work;
  std::int64_t first_row = 0;  // within the slab
  std::int64_t first_output = 0;
  std::int64_t outputs = 0;          // real ones
  float* levels = nullptr;           // partial sums of the tree
  const std::byte* end = nullptr;    // of the first block's weights
  const std::byte* after = nullptr;  // weights of the task that this thread likely takes next

  [[nodiscard]] std::int64_t width() const { return work.blocks * tile_outputs; }
};

// Steps that the kernel takes before all rows of the chunk take the next: even shares of the run,
// of one to two panels' bytes. A single tile of rows takes all: its sums stay in registers while
// the weights stream by.
std::int64_t steps_of_panel(const plan& plan, std::int64_t steps, std::int64_t step_bytes) {
  const bool streams = plan.rows <= decode_rows && plan.with.form == input_form::bfloat16_tiles;
  const std::int64_t panels = streams ? 1 : steps * step_bytes / panel_bytes;
  return divide_up(steps, std::max<std::int64_t>(1, panels));
}

// The products of one run, panel by panel, into `sums`, the last panel into `target`. Leaves
// `of.work` at the start of the next run.
void sum_run(const plan& plan, std::int64_t steps, float* sums, float_rows target, task& of) {
  panel& work = of.work;
  const std::int64_t step_bytes = plan.step_inputs * tile_outputs *
                                  static_cast<std::int64_t>(size_of(plan.args.weights->type()));
  const std::int64_t steps_max = steps_of_panel(plan, steps, work.blocks * step_bytes);
  work.sums = sums;
  work.resume = false;
  for (std::int64_t done = 0; done < steps; done += work.steps) {
    work.steps = std::min(steps_max, steps - done);
    const bool last = done + work.steps == steps;
    work.target = last ? target.first : sums;
    work.target_stride = last ? target.stride : work.sums_stride;
    const std::byte* const end = work.weights + work.steps * step_bytes;
    work.next_weights = end == of.end ? of.after : end;
    plan.with.run(work);
    work.input += work.steps * work.input_step_bytes;
    work.weights = end;
    work.resume = true;
  }
}

float_rows output_of(const plan& plan, const task& of) {
  const tensor_view& output = plan.args.output;
  return {output.row<float>(plan.first_row + of.first_row) + of.first_output, output.row_stride};
}

// Runs are added as a binary counter counts: after run r, one partial sum for each one bit of r
// + 1. Leaves the sum over all runs in the first level.
void sum_tree(const plan& plan, task& of) {
  const std::int64_t cells = of.work.rows * of.width();
  std::int64_t begin = 0;
  float* level = of.levels;
  unsigned runs_done = 0;
  for (const std::int64_t end : plan.args.weights->run_ends()) {
    if (begin == end) {
      std::fill_n(level, cells, 0.0F);
    } else {
      sum_run(plan, divide_up(end - begin, plan.step_inputs), level, {level, of.width()}, of);
    }
    begin = end;
    for (unsigned bits = runs_done; (bits & 1U) != 0; bits >>= 1) {
      level -= plan.sums_per_level;
      plan.with.add(level, level, level + plan.sums_per_level, cells);
    }
    level += plan.sums_per_level;
    ++runs_done;
  }
}

void write_outputs(const plan& plan, const task& of) {
  const float_rows to = output_of(plan, of);
  for (std::int64_t row = 0; row < of.work.rows; ++row) {
    const float* from = of.levels + row * of.width();
    float* const cells = to.first + row * to.stride;
    if (plan.args.bias.empty()) {
      std::copy_n(from, of.outputs, cells);
    } else {
      plan.with.add(cells, from, plan.args.bias.data() + of.first_output, of.outputs);
    }
  }
}

void run_task(const plan& plan, std::int64_t index, int thread) {
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t blocks = divide_up(weights.outputs(), tile_outputs);
  const std::int64_t first_block = index % plan.groups * plan.group_blocks;
  task own{.work = plan.prototype,
           .first_row = index / plan.groups * plan.chunk_rows,
           .first_output = first_block * tile_outputs,
           .outputs = 0,
           .levels = plan.sums + thread * levels_max * plan.sums_per_level};
  panel& work = own.work;
  work.input += own.first_row / tile_outputs * work.input_tile_bytes;
  work.rows = std::min(plan.chunk_rows, plan.rows - own.first_row);
  work.weights = weights.block(first_block);
  work.block_bytes = static_cast<std::int64_t>(weights.bytes()) / blocks;
  work.blocks = std::min(plan.group_blocks, blocks - first_block);
  own.end = work.weights + work.block_bytes;
  own.after = weights.block(std::min(first_block + plan.threads * plan.group_blocks, blocks - 1));
  work.sums_stride = own.width();
  own.outputs = std::min(own.width(), weights.outputs() - own.first_output);
  const bool straight_to_output = weights.run_ends().size() == 1 && weights.inputs() > 0 &&
                                  plan.args.bias.empty() && own.outputs == own.width();
  if (straight_to_output) {
    sum_run(plan, divide_up(weights.inputs(), plan.step_inputs), own.levels, output_of(plan, own),
            own);
    return;
  }
  sum_tree(plan, own);
  write_outputs(plan, own);
}

// Groups as wide as the kernel profits from, but enough of them that the threads end together. Rows
// of tiles pass two by two blocks, so more would only enlarge the panel.
std::int64_t choose_group(const plan& plan, std::int64_t blocks, std::int64_t tasks_min) {
  const bool pairs = plan.with.form == input_form::bfloat16_tiles && plan.rows > decode_rows;
  const std::int64_t chunks = divide_up(plan.rows, plan.chunk_rows);
  std::int64_t group = pairs ? 2 : block_max;
  while (group > 1 && divide_up(blocks, group) * chunks < tasks_min) group /= 2;
  return group;
}

void multiply_slab(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  prepare_input(plan, pool, memory);
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t row_bytes =
      std::max<std::int64_t>(1, weights.padded_inputs()) * plan.element_bytes;
  const std::int64_t chunks_wanted =
      std::max<std::int64_t>(1, (plan.rows * row_bytes + chunk_bytes / 2) / chunk_bytes);
  plan.chunk_rows =
      divide_up(divide_up(plan.rows, chunks_wanted), chunk_rows_step) * chunk_rows_step;
  const std::int64_t chunks = divide_up(plan.rows, plan.chunk_rows);
  const std::int64_t blocks = divide_up(weights.outputs(), tile_outputs);
  plan.group_blocks = choose_group(plan, blocks, tasks_per_thread * pool.threads());
  plan.threads = pool.threads();
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
