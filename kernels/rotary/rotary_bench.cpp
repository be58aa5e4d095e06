#include "kernels/rotary/rotary.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {

void register_rotary_benchmarks(const machine_peaks& peaks) {
  constexpr std::int64_t heads = 24;  // 16 of queries, 8 of keys
  constexpr std::int64_t head_dim = 128;
  register_settings("rotary", [&peaks](benchmark::State& state, const vector_setting& setting) {
    thread_pool pool({.threads = setting.threads});
    const buffer x = bench_matrix(setting.rows, heads * head_dim);
    const auto places = static_cast<std::size_t>(setting.rows * head_dim / 2);
    const std::vector<float> cosine(places, 0.6F);
    const std::vector<float> sine(places, 0.8F);  // keeps the norm: nothing overflows
    for (auto _ : state) {
      rotary(setting.path, pool,
             {.heads = as_heads(x.view(dtype::float32, setting.rows, heads * head_dim), head_dim),
              .cos = cosine,
              .sin = sine});
    }
    report_bytes(state, peaks, 8.0 * static_cast<double>(setting.rows * heads * head_dim), setting);
  });
}

}  // namespace troupe::kernels
