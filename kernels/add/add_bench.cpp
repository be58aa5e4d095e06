#include "kernels/add/add.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {

void register_add_benchmarks(const machine_peaks& peaks) {
  constexpr std::int64_t columns = 1024;  // hidden_size of a 0.6 B model
  register_settings("add", [&peaks](benchmark::State& state, const vector_setting& setting) {
    thread_pool pool({.threads = setting.threads});
    const buffer target = bench_matrix(setting.rows, columns);
    const buffer addend = bench_matrix(setting.rows, columns, 1e-6F);
    for (auto _ : state) {
      add(setting.path, pool,
          {.target = target.view(dtype::float32, setting.rows, columns),
           .addend = addend.view(dtype::float32, setting.rows, columns),
           .bias = {}});
    }
    report_bytes(state, peaks, 12.0 * static_cast<double>(setting.rows * columns), setting);
  });
}

}  // namespace troupe::kernels
