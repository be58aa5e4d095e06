#include "kernels/machine_peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/buffer.hpp"
#include "kernels/cpu_ops.hpp"
#include "kernels/matmul/matmul_work.hpp"

namespace troupe::kernels {
namespace {

constexpr std::int64_t read_bytes = std::int64_t{512} << 20;
constexpr std::int64_t read_run_bytes = std::int64_t{1} << 20;
constexpr int read_passes = 5;
// Short passes, many of them: one that nobody interrupted is among them.
constexpr int matmul_passes = 24;
constexpr int product_passes = 8;
constexpr double task_operations = 1e8;
constexpr std::int64_t tasks_per_thread = 4;

template <class Work>
double best_seconds(int passes, const Work& work) {
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    best = pass == 0 ? took.count() : std::min(best, took.count());
  }
  return best;
}

// Eight sums, so that additions never hold up the loads.
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[8] = {};
  for (std::int64_t i = 0; i < count; i += 8) {
    for (std::int64_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  std::uint64_t all = 0;
  for (const std::uint64_t sum : sums) all += sum;
  return all;
}

// Operands of one thread.
struct panel_shape {
  std::int64_t rows = 0;
  std::int64_t inputs = 0;
  std::int64_t blocks = 0;
  std::int64_t input_bytes = 0;
  std::int64_t weight_bytes = 0;
  std::int64_t sums_bytes = 0;

  [[nodiscard]] std::int64_t bytes() const { return input_bytes + weight_bytes + sums_bytes; }
  [[nodiscard]] double operations() const {
    return 2.0 * static_cast<double>(rows * inputs * blocks * tile_outputs);
  }
};

// Bfloat16: 128 KiB of input and 64 KiB of weights for L2, 8 and 16 KiB for L1.
panel_shape shape_of(operand_home home, std::int64_t element_bytes, std::int64_t weight_bytes) {
  const bool far = home == operand_home::l2;
  panel_shape shape{.rows = far ? 128 : 32, .inputs = far ? 512 : 256, .blocks = far ? 4 : 2};
  if (!far) shape.inputs = shape.inputs * 2 / std::max(element_bytes, weight_bytes);
  shape.input_bytes = shape.rows * shape.inputs * element_bytes;
  shape.weight_bytes = shape.blocks * tile_outputs * shape.inputs * weight_bytes;
  shape.sums_bytes = shape.rows * shape.blocks * tile_outputs * 4;
  return shape;
}

matmul_detail::panel panel_of(const panel_shape& shape, const matmul_detail::kernel& with,
                              std::byte* memory) {
  const std::int64_t element_bytes = matmul_detail::element_bytes(with.form);
  const bool tiles = matmul_detail::is_tiles(with.form);
  matmul_detail::panel work;
  work.input = memory + shape.weight_bytes;
  work.input_row_bytes = tiles ? matmul_detail::tile_row_bytes : shape.inputs * element_bytes;
  work.input_step_bytes = tiles ? matmul_detail::tile_row_bytes * tile_outputs : 0;
  work.input_tile_bytes = tile_outputs * shape.inputs * element_bytes;
  work.rows = shape.rows;
  work.weights = memory;
  work.block_bytes = shape.weight_bytes / shape.blocks;
  work.blocks = shape.blocks;
  work.next_weights = memory;
  work.steps = shape.inputs / with.step_inputs;
  work.sums = reinterpret_cast<float*>(memory + shape.weight_bytes + shape.input_bytes);
  work.sums_stride = shape.blocks * tile_outputs;
  work.target = work.sums;
  work.target_stride = work.sums_stride;
  return work;
}

}  // namespace

double measure_read_bandwidth(thread_pool& pool) {
  const auto memory = buffer::allocate(read_bytes, "the bandwidth measurement");
  if (!memory) return 0;
  pool.parallel_for(read_bytes / read_run_bytes, [&](std::int64_t run, int) {
    std::memset(memory->data() + run * read_run_bytes, 1, read_run_bytes);
  });
  std::atomic<std::uint64_t> sum{0};  // keeps the reads from being optimised away
  const double seconds = best_seconds(read_passes, [&] {
    pool.parallel_for(read_bytes / read_run_bytes, [&](std::int64_t run, int) {
      const auto* words =
          reinterpret_cast<const std::uint64_t*>(memory->data() + run * read_run_bytes);
      sum.fetch_add(sum_words(words, read_run_bytes / 8), std::memory_order_relaxed);
    });
  });
  return static_cast<double>(read_bytes) / seconds / 1e9;
}

double measure_matmul_peak(thread_pool& pool, instruction_path path, dtype weights,
                           quantisation kind, operand_home home) {
  TROUPE_CHECK(kind == quantisation::none || kind == quantisation::int8_runs);
  const matmul_detail::kernel with = matmul_detail::kernel_of(path, weights, kind);
  if (with.panels.run == nullptr) return 0;
  const panel_shape shape = shape_of(home, matmul_detail::element_bytes(with.form),
                                     with.step_bytes / with.step_inputs / tile_outputs);
  const auto memory = buffer::allocate(static_cast<std::size_t>(shape.bytes() * pool.threads()),
                                       "the matrix product measurement");
  if (!memory) return 0;
  // Memory never written is one page of zeros, however large, and always in L1.
  std::memset(memory->data(), 0x3C, memory->size());
  const auto repeats = static_cast<std::int64_t>(task_operations / shape.operations()) + 1;
  const std::int64_t tasks = tasks_per_thread * pool.threads();
  const double seconds = best_seconds(matmul_passes, [&] {
    pool.parallel_for(tasks, [&](std::int64_t, int thread) {
      const matmul_detail::panel work =
          panel_of(shape, with, memory->data() + thread * shape.bytes());
      for (std::int64_t i = 0; i < repeats; ++i) with.panels.run(work);
    });
  });
  return shape.operations() * static_cast<double>(repeats * tasks) / seconds / 1e9;
}

double measure_product_peak(thread_pool& pool, instruction_path path, dtype type,
                            quantisation kind) {
  constexpr std::int64_t rows = 512;
  constexpr std::int64_t inputs = 4096;
  constexpr std::int64_t outputs = 4096;
  auto ops = make_cpu_ops(path);
  auto weights = packed_tensor::allocate(
      {.outputs = outputs, .run_ends = {inputs}, .type = type, .kind = kind});
  const auto input = buffer::allocate(rows * inputs * size_of(type), "the product measurement");
  const auto output = buffer::allocate(rows * outputs * sizeof(float), "the product measurement");
  if (!ops || !weights || !input || !output) return 0;
  // One block of rows serves for all: the rate does not depend on the numbers.
  std::vector<std::byte> block(static_cast<std::size_t>(tile_outputs * inputs) * 2,
                               std::byte{0x3C});
  for (std::int64_t first = 0; first < outputs; first += tile_outputs) {
    weights->pack({.rows = block,
                   .source = source_dtype::bfloat16,
                   .first_output = first,
                   .outputs = tile_outputs});
  }
  std::memset(input->data(), 0x3C, input->size());
  cpu_queue queue(pool);
  const double seconds = best_seconds(product_passes, [&] {
    (*ops)->matmul(queue, {input->view(type, rows, inputs),
                           &*weights,
                           {},
                           output->view(dtype::float32, rows, outputs)});
  });
  return 2.0 * static_cast<double>(rows * inputs * outputs) / seconds / 1e9;
}

}  // namespace troupe::kernels
