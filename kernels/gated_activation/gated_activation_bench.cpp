#include "kernels/gated_activation/gated_activation.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {
namespace {

void run(benchmark::State& state, const machine_peaks& peaks, const vector_setting& setting,
         gate_kind kind) {
  constexpr std::int64_t columns = 3072;  // intermediate_size of a 0.6 B model
  thread_pool pool({.threads = setting.threads});
  const buffer fused = bench_matrix(setting.rows, 2 * columns);  // gate and up side by side
  const buffer output = bench_matrix(setting.rows, columns);
  const tensor_view both = fused.view(dtype::float32, setting.rows, 2 * columns);
  for (auto _ : state) {
    gated_activation(setting.path, pool,
                     {.gate = column_slice(both, 0, columns),
                      .up = column_slice(both, columns, columns),
                      .kind = kind,
                      .output = output.view(dtype::bfloat16, setting.rows, columns)});
  }
  report_bytes(state, peaks, 10.0 * static_cast<double>(setting.rows * columns), setting);
}

}  // namespace

void register_gated_activation_benchmarks(const machine_peaks& peaks) {
  const auto add = [&peaks](const char* name, gate_kind kind) {
    register_settings(name, [&peaks, kind](benchmark::State& state, const vector_setting& setting) {
      run(state, peaks, setting, kind);
    });
  };
  add("gated_activation/silu", gate_kind::silu);
  add("gated_activation/gelu_tanh", gate_kind::gelu_tanh);
  add("gated_activation/gelu", gate_kind::gelu);
}

}  // namespace troupe::kernels
