#include "kernels/vector_bench.hpp"
#include "kernels/write_kv/write_kv.hpp"

namespace troupe::kernels {

void register_write_kv_benchmarks(const machine_peaks& peaks) {
  constexpr std::int64_t heads = 8;
  constexpr std::int64_t head_dim = 128;
  constexpr std::int64_t blocks = 64;
  register_settings("write_kv", [&peaks](benchmark::State& state, const vector_setting& setting) {
    thread_pool pool({.threads = setting.threads});
    const buffer source = bench_matrix(setting.rows, heads * head_dim);
    const buffer cache = bench_matrix(heads * blocks * kv_block_tokens, head_dim);
    const auto half = static_cast<std::ptrdiff_t>(cache.size() / 2);
    std::vector<std::int64_t> slots;
    for (std::int64_t i = 0; i < setting.rows; ++i) slots.push_back(i);
    const tensor_view rows =
        as_heads(source.view(dtype::float32, setting.rows, heads * head_dim), head_dim);
    for (auto _ : state) {
      write_kv(setting.path, pool,
               {.keys = rows,
                .values = rows,
                .cache = {{device_kind::cpu, cache.data()},
                          {device_kind::cpu, cache.data() + half},
                          dtype::bfloat16,
                          heads,
                          head_dim,
                          blocks},
                .slots = slots});
    }
    report_bytes(state, peaks, 12.0 * static_cast<double>(setting.rows * heads * head_dim),
                 setting);
  });
}

}  // namespace troupe::kernels
