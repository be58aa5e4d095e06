#include "kernels/machine_peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels/buffer.hpp"
#include "kernels/matmul/matmul_work.hpp"

namespace troupe::kernels {
namespace {

constexpr std::int64_t read_bytes = std::int64_t{512} << 20;
constexpr std::int64_t read_run_bytes = std::int64_t{1} << 20;
constexpr int read_passes = 5;
// Short passes, many of them: one that nobody interrupted is among them.
constexpr int matmul_passes = 24;
constexpr double matmul_pass_operations = 2e9;
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
  std::int64_t input_bytes = 0;
  std::int64_t weight_bytes = 0;
  std::int64_t sums_bytes = 0;
};

panel_shape shape_of(operand_home home, std::int64_t element_bytes, std::int64_t weight_bytes) {
  panel_shape shape;
  shape.rows = home == operand_home::l2 ? 128 : 32;
  shape.inputs = home == operand_home::l2 ? 512 : 128;
  shape.input_bytes = shape.rows * shape.inputs * element_bytes;
  shape.weight_bytes = matmul_detail::block_max * tile_outputs * shape.inputs * weight_bytes;
  shape.sums_bytes = shape.rows * matmul_detail::block_max * tile_outputs * 4;
  return shape;
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
                           operand_home home) {
  using namespace matmul_detail;
  const kernel with = kernel_of(path, weights);
  if (with.run == nullptr) return 0;
  const std::int64_t element_bytes = with.form == input_form::float32_rows ? 4 : 2;
  const auto weight_bytes = static_cast<std::int64_t>(size_of(weights));
  const panel_shape shape = shape_of(home, element_bytes, weight_bytes);
  const std::int64_t bytes = shape.input_bytes + shape.weight_bytes + shape.sums_bytes;
  const auto memory = buffer::allocate(static_cast<std::size_t>(bytes * pool.threads()),
                                       "the matrix product measurement");
  if (!memory) return 0;
  const double operations =
      2.0 * static_cast<double>(shape.rows * shape.inputs * block_max * tile_outputs);
  const auto repeats = static_cast<std::int64_t>(matmul_pass_operations / operations) / 8 + 1;
  const std::int64_t tasks = tasks_per_thread * pool.threads();
  const double seconds = best_seconds(matmul_passes, [&] {
    pool.parallel_for(tasks, [&](std::int64_t, int thread) {
      std::byte* const own = memory->data() + thread * bytes;
      panel work{.input = own + shape.weight_bytes,
                 .input_row_bytes = shape.inputs * element_bytes,
                 .input_step_bytes = element_bytes,
                 .input_tile_bytes = tile_outputs * shape.inputs * element_bytes,
                 .rows = shape.rows,
                 .weights = own,
                 .block_bytes = tile_outputs * shape.inputs * weight_bytes,
                 .blocks = block_max,
                 .steps = weights == dtype::float32 ? shape.inputs : shape.inputs / tile_inputs,
                 .sums = reinterpret_cast<float*>(own + shape.weight_bytes + shape.input_bytes),
                 .sums_stride = block_max * tile_outputs,
                 .resume = false,
                 .target = nullptr,
                 .target_stride = block_max * tile_outputs};
      work.target = work.sums;
      if (with.form == input_form::bfloat16_tiles) {
        work.input_row_bytes = tile_inputs * 2;
        work.input_step_bytes = tile_inputs * tile_outputs * 2;
      }
      for (std::int64_t i = 0; i < repeats; ++i) with.run(work);
    });
  });
  return operations * static_cast<double>(repeats * tasks) / seconds / 1e9;
}

}  // namespace troupe::kernels
