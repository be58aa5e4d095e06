#include "kernels/matmul/matmul.hpp"

#include <algorithm>

#include "kernels/matmul/matmul_plan.hpp"
#include "kernels/packed_integers.hpp"

namespace troupe::kernels {

namespace matmul_detail {

namespace {

// The widest that the path covers and this CPU has: the sums are exact, so the bits are the same.
panel_kernel integer_panel(instruction_path path, quantisation kind) {
  const bool int8 = kind == quantisation::int8_runs;
  if (path != instruction_path::avx2 && has_avx512_vnni()) {
    return int8 ? avx512_int8_panel() : avx512_int4_panel();
  }
  return has_avx_vnni() ? avx_vnni_panel(kind) : avx2_integer_panel(kind);
}

kernel integer_kernel(instruction_path path, quantisation kind) {
  const bool tiles =
      path == instruction_path::amx_bf16 && kind == quantisation::int8_runs && has_amx_int8();
  return {.panels = tiles ? amx_int8_panel() : integer_panel(path, kind),
          .form = tiles ? input_form::int8_tiles : input_form::int8_rows,
          .add = vector_add(path),
          .quantise = vector_quantise(path),
          .scale = vector_scale(path, kind),
          .step_inputs = packing::integer_step_inputs,
          .step_bytes = packing::integer_step_bytes(kind)};
}

}  // namespace

kernel kernel_of(instruction_path path, dtype type, quantisation kind) {
  if (is_integer(kind)) return integer_kernel(path, kind);
  kernel made{.panels = {}, .form = input_form::float32_rows, .add = vector_add(path)};
  if (type == dtype::bfloat16) {
    made.step_inputs = tile_inputs;
    made.step_bytes = tile_inputs * tile_outputs * 2;
  }
  if (type == dtype::bfloat16 && path == instruction_path::amx_bf16) {
    made.panels = amx_panel();
    made.form = input_form::bfloat16_tiles;
  } else if (type == dtype::bfloat16 && path == instruction_path::avx512_bf16) {
    made.panels = avx512_bf16_panel();
    made.form = input_form::bfloat16_rows;
  } else {
    made.panels = fma_panel(path, type);
  }
  return made;
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
constexpr std::int64_t tasks_per_thread = 8;
constexpr std::int64_t levels_max = 4;  // partial sums that 8 runs keep at once in the tree

struct float_rows {
  float* first = nullptr;
  std::int64_t stride = 0;
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

// One chunk of rows by one group of blocks.
struct task {
  panel work;
  std::int64_t first_row = 0;  // within the slab
  std::int64_t first_output = 0;
  std::int64_t outputs = 0;          // real ones
  float* levels = nullptr;           // partial sums of the tree
  const float* scales = nullptr;     // of the first block's runs: integers only
  const std::byte* end = nullptr;    // of the first block's weights
  const std::byte* after = nullptr;  // weights of the task that this thread likely takes next

  [[nodiscard]] std::int64_t width() const { return work.blocks * tile_outputs; }
};

// Steps that the kernel takes before all rows of the chunk take the next: even shares of the run,
// of one to two panels' bytes. Rows that pass the weights once take all: their sums stay in
// registers, and streams of weights are not broken off.
std::int64_t steps_of_panel(const plan& plan, std::int64_t steps, std::int64_t step_bytes) {
  const bool streams = plan.rows <= plan.with.panels.one_pass_rows;
  const std::int64_t panels = streams ? 1 : steps * step_bytes / panel_bytes;
  return divide_up(steps, std::max<std::int64_t>(1, panels));
}

// The products of one run, panel by panel, into `sums`, the last panel into `target`. Leaves
// `of.work` at the start of the next run.
void sum_run(const plan& plan, std::int64_t steps, float* sums, float_rows target, task& of) {
  panel& work = of.work;
  const std::int64_t step_bytes = plan.with.step_bytes;
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
    plan.with.panels.run(work);
    work.input += work.steps * work.input_step_bytes;
    if (work.group_offsets != nullptr) work.group_offsets += 2 * work.steps;
    work.weights = end;
    work.resume = true;
  }
}

float_rows output_of(const plan& plan, const task& of) {
  const tensor_view& output = plan.args.output;
  return {output.row<float>(plan.first_row + of.first_row) + of.first_output, output.row_stride};
}

// The sums of integers of one run; `to` may be they.
void scale_run(const plan& plan, const task& of, std::int64_t run, const float* sums,
               float_rows to) {
  const auto runs = static_cast<std::int64_t>(plan.args.weights->run_ends().size());
  plan.with.scale({.sums = sums,
                   .to = to.first,
                   .to_stride = to.stride,
                   .rows = of.work.rows,
                   .blocks = of.work.blocks,
                   .weight_scales = of.scales + run * tile_outputs,
                   .block_bytes = of.work.block_bytes,
                   .row_scales = plan.row_scales + of.first_row * runs + run,
                   .row_offsets = plan.row_offsets + of.first_row * runs + run,
                   .row_stride = runs});
}

// Runs are added as a binary counter counts: after run r, one partial sum for each one bit of r
// + 1. Leaves the sum over all runs in the first level.
void sum_tree(const plan& plan, task& of) {
  const std::int64_t cells = of.work.rows * of.width();
  std::int64_t begin = 0;
  float* level = of.levels;
  std::int64_t run = 0;
  for (const std::int64_t end : plan.args.weights->run_ends()) {
    if (begin == end) {
      std::fill_n(level, cells, 0.0F);
    } else {
      sum_run(plan, divide_up(end - begin, plan.with.step_inputs), level, {level, of.width()}, of);
      if (plan.with.scale != nullptr) scale_run(plan, of, run, level, {level, of.width()});
    }
    begin = end;
    for (auto bits = static_cast<unsigned>(run); (bits & 1U) != 0; bits >>= 1) {
      level -= plan.sums_per_level;
      plan.with.add(level, level, level + plan.sums_per_level, cells);
    }
    level += plan.sums_per_level;
    ++run;
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

// A block's scales lie behind its weights, where no stream of them has been when they are needed.
void fetch_scales(const task& of, std::int64_t runs) {
  for (std::int64_t block = 0; block < of.work.blocks; ++block) {
    const auto* scales =
        reinterpret_cast<const std::byte*>(of.scales) + block * of.work.block_bytes;
    for (std::int64_t run = 0; run < runs; ++run) {
      __builtin_prefetch(scales + run * packing::integer_line_bytes);
    }
  }
}

void run_task(const plan& plan, std::int64_t index, int thread) {
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t blocks = divide_up(weights.outputs(), tile_outputs);
  const bool integers = is_integer(weights.kind());
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
  work.block_bytes = weights.block_bytes();
  work.blocks = std::min(plan.group_blocks, blocks - first_block);
  own.end = work.weights + weights.padded_inputs() / plan.with.step_inputs * plan.with.step_bytes;
  own.after = weights.block(std::min(first_block + plan.threads * plan.group_blocks, blocks - 1));
  work.sums_stride = own.width();
  if (integers) {
    own.scales = weights.block_scales(first_block);
    fetch_scales(own, static_cast<std::int64_t>(weights.run_ends().size()));
  }
  if (work.group_offsets != nullptr) {
    work.group_offsets += own.first_row * work.group_offsets_stride;
  }
  own.outputs = std::min(own.width(), weights.outputs() - own.first_output);
  const bool straight_to_output = weights.run_ends().size() == 1 && weights.inputs() > 0 &&
                                  plan.args.bias.empty() && own.outputs == own.width();
  if (straight_to_output) {
    const float_rows to = output_of(plan, own);
    sum_run(plan, divide_up(weights.inputs(), plan.with.step_inputs), own.levels,
            integers ? float_rows{own.levels, own.width()} : to, own);
    if (integers) scale_run(plan, own, 0, own.levels, to);
    return;
  }
  sum_tree(plan, own);
  write_outputs(plan, own);
}

// Groups as wide as the kernel profits from, but enough of them that the threads end together. Rows
// of tiles pass two by two blocks, so more would only enlarge the panel.
std::int64_t choose_group(const plan& plan, std::int64_t blocks, std::int64_t tasks_min) {
  const bool pairs = is_tiles(plan.with.form) && plan.rows > decode_rows;
  const std::int64_t chunks = divide_up(plan.rows, plan.chunk_rows);
  std::int64_t group = pairs ? 2 : block_max;
  while (group > 1 && divide_up(blocks, group) * chunks < tasks_min) group /= 2;
  return group;
}

void multiply_slab(plan& plan, thread_pool& pool, matmul_scratch::memory& memory) {
  prepare_input(plan, pool, memory);
  const packed_tensor& weights = *plan.args.weights;
  const std::int64_t row_bytes =
      std::max<std::int64_t>(1, weights.padded_inputs()) * element_bytes(plan.with.form);
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
  plan plan(args, kernel_of(path, args.weights->type(), args.weights->kind()));
  TROUPE_CHECK(plan.with.panels.run != nullptr);
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
