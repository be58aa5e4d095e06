// kernels_bench [--benchmark_filter=matmul/decode]: every op's speed and its share of the
// machine's.
#include <chrono>
#include <cstdio>

#include "kernels/kernels_bench.hpp"

namespace troupe::kernels {

void report(benchmark::State& state, const machine_peaks& peaks, const bench_work& work) {
  using benchmark::Counter;
  const auto rate = Counter::kIsIterationInvariantRate;
  const auto& gflops = work.type == dtype::float32 ? peaks.float32_gflops : peaks.bfloat16_gflops;
  const auto share = [&](const char* name, double amount, double giga_peak) {
    if (giga_peak > 0) state.counters[name] = Counter(amount / giga_peak * 1e-7, rate);
  };
  if (work.bytes > 0) {
    state.counters["B/s"] = Counter(work.bytes, rate);
    share("%read", work.bytes, peaks.read_gbytes.at(work.threads));
  }
  if (work.flops > 0) {
    state.counters["FLOP/s"] = Counter(work.flops, rate);
    share("%peak", work.flops, gflops.at({work.threads, work.path}));
  }
}

namespace {

machine_peaks measure_peaks() {
  machine_peaks peaks;
  for (const int threads : {1, 2}) {
    thread_pool pool({.threads = threads});
    peaks.read_gbytes[threads] = measure_read_bandwidth(pool);
    std::printf("%d threads: read %.1f GB/s", threads, peaks.read_gbytes[threads]);
    for (const dtype type : {dtype::bfloat16, dtype::float32}) {
      auto& gflops = type == dtype::float32 ? peaks.float32_gflops : peaks.bfloat16_gflops;
      for (const instruction_path path : supported_paths(dtype::bfloat16)) {
        const double l2 = measure_matmul_peak(pool, path, type);
        const double l1 = measure_matmul_peak(pool, path, type, operand_home::l1);
        gflops[{threads, path}] = l2;
        std::printf(", %s/%s %.0f (from L1 %.0f) GFLOP/s", std::string(to_string(path)).c_str(),
                    std::string(to_string(type)).c_str(), l2, l1);
      }
    }
    std::printf("\n");
  }
  return peaks;
}

}  // namespace
}  // namespace troupe::kernels

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 1;
  const troupe::kernels::machine_peaks peaks = troupe::kernels::measure_peaks();
  troupe::kernels::register_matmul_benchmarks(peaks);
  troupe::kernels::register_packed_tensor_benchmarks(peaks);
  troupe::kernels::register_attention_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
