#include "kernels/gather_rows/gather_rows.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {

void register_gather_rows_benchmarks(const machine_peaks& peaks) {
  constexpr std::int64_t columns = 1024;
  register_settings(
      "gather_rows", [&peaks](benchmark::State& state, const vector_setting& setting) {
        thread_pool pool({.threads = setting.threads});
        const buffer input = bench_matrix(2 * setting.rows, columns);
        const buffer output = bench_matrix(setting.rows, columns);
        std::vector<std::int32_t> rows;
        for (std::int64_t i = 0; i < setting.rows; ++i) rows.push_back(static_cast<int>(2 * i + 1));
        for (auto _ : state) {
          gather_rows(setting.path, pool,
                      {.input = input.view(dtype::float32, 2 * setting.rows, columns),
                       .rows = rows,
                       .output = output.view(dtype::float32, setting.rows, columns)});
        }
        report_bytes(state, peaks, 8.0 * static_cast<double>(setting.rows * columns), setting);
      });
}

}  // namespace troupe::kernels
