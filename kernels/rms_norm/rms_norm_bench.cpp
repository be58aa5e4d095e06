#include "kernels/rms_norm/rms_norm.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {
namespace {

// A whole row of 1024, or 16 heads of 128; the output as the matmul after it reads it.
void run(benchmark::State& state, const machine_peaks& peaks, const vector_setting& setting,
         std::int64_t heads, std::int64_t size) {
  const std::int64_t columns = heads * size;
  thread_pool pool({.threads = setting.threads});
  const buffer input = bench_matrix(setting.rows, columns);
  const buffer output = bench_matrix(setting.rows, columns);
  const std::vector<float> weight(static_cast<std::size_t>(size), 1.5F);
  tensor_view from = input.view(dtype::float32, setting.rows, columns);
  tensor_view to = output.view(dtype::bfloat16, setting.rows, columns);
  if (heads > 1) {
    from = as_heads(from, size);
    to = as_heads(to, size);
  }
  for (auto _ : state) {
    rms_norm(setting.path, pool, {.input = from, .weight = weight, .epsilon = 1e-6F, .output = to});
  }
  report_bytes(state, peaks, 6.0 * static_cast<double>(setting.rows * columns), setting);
}

}  // namespace

void register_rms_norm_benchmarks(const machine_peaks& peaks) {
  register_settings("rms_norm/hidden",
                    [&peaks](benchmark::State& state, const vector_setting& setting) {
                      run(state, peaks, setting, 1, 1024);
                    });
  register_settings("rms_norm/heads",
                    [&peaks](benchmark::State& state, const vector_setting& setting) {
                      run(state, peaks, setting, 16, 128);
                    });
}

}  // namespace troupe::kernels
