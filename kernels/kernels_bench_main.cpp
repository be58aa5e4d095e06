// kernels_bench [--benchmark_filter=matmul/decode]: every op's speed and its share of the
// machine's.
#include <cstdio>
#include <string>
#include <tuple>

#include "kernels/kernels_bench.hpp"
#include "kernels/vector_bench.hpp"

namespace troupe::kernels {

void report(benchmark::State& state, const machine_peaks& peaks, const bench_work& work) {
  using benchmark::Counter;
  const double per_second = static_cast<double>(state.iterations()) / work.seconds;
  if (work.bytes > 0) {
    const double rate = work.bytes * per_second;
    state.counters["GB/s"] = Counter(rate / 1e9);
    state.counters["%read"] = Counter(rate / peaks.read_gbytes.at(work.threads) / 1e7);
  }
  if (work.flops > 0) {
    const double rate = work.flops * per_second;
    const quantisation kind = is_integer(work.kind) ? quantisation::int8_runs : work.kind;
    const double peak = peaks.gflops.at({work.threads, work.path, work.type, kind});
    state.counters["GFLOP/s"] = Counter(rate / 1e9);
    if (peak > 0) state.counters["%peak"] = Counter(rate / peak / 1e7);
  }
}

namespace {

machine_peaks measure_peaks() {
  machine_peaks peaks;
  for (const int threads : {1, 2}) {
    thread_pool pool({.threads = threads});
    peaks.read_gbytes[threads] = measure_read_bandwidth(pool);
    std::printf("%d thread(s): read %.1f GB/s", threads, peaks.read_gbytes[threads]);
    for (const auto& [name, type, kind] :
         {std::tuple("bfloat16", dtype::bfloat16, quantisation::none),
          std::tuple("int8", dtype::bfloat16, quantisation::int8_runs),
          std::tuple("float32", dtype::float32, quantisation::none)}) {
      for (const instruction_path path : supported_paths(dtype::bfloat16)) {
        const double l2 = measure_matmul_peak(pool, path, type, kind);
        const double l1 = measure_matmul_peak(pool, path, type, kind, operand_home::l1);
        peaks.gflops[{threads, path, type, kind}] = l2;
        std::printf("\n  %-12s %-9s %6.0f GFLOP/s (from L1 %.0f)",
                    std::string(to_string(path)).c_str(), name, l2, l1);
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
  troupe::kernels::register_attention_benchmarks(peaks);
  troupe::kernels::register_vector_benchmarks(peaks);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
