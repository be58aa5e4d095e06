// What the benchmarks of the element-wise ops and of the vocabulary share.
#pragma once

#include <benchmark/benchmark.h>

#include <random>
#include <string>

#include "kernels/buffer.hpp"
#include "kernels/kernels_bench.hpp"

namespace troupe::kernels {

// One for each op; called by the program's main.
void register_add_benchmarks(const machine_peaks& peaks);
void register_gated_activation_benchmarks(const machine_peaks& peaks);
void register_gather_rows_benchmarks(const machine_peaks& peaks);
void register_rms_norm_benchmarks(const machine_peaks& peaks);
void register_rotary_benchmarks(const machine_peaks& peaks);
void register_vocabulary_benchmarks(const machine_peaks& peaks);
void register_write_kv_benchmarks(const machine_peaks& peaks);

inline void register_vector_benchmarks(const machine_peaks& peaks) {
  register_add_benchmarks(peaks);
  register_gated_activation_benchmarks(peaks);
  register_gather_rows_benchmarks(peaks);
  register_rms_norm_benchmarks(peaks);
  register_rotary_benchmarks(peaks);
  register_vocabulary_benchmarks(peaks);
  register_write_kv_benchmarks(peaks);
}

// A [rows][columns] matrix of normally distributed numbers, always the same ones.
[[nodiscard]] inline buffer bench_matrix(std::int64_t rows, std::int64_t columns,
                                         float scale = 1.0F) {
  buffer made =
      *buffer::allocate(static_cast<std::size_t>(rows * columns) * sizeof(float), "bench");
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, scale);
  for (float& value : made.as<float>()) value = normal(random);
  return made;
}

struct vector_setting {
  instruction_path path = instruction_path::avx2;
  std::int64_t rows = 1;
  int threads = 1;
};

// Calls body(state, setting) as "<name>/<path>/rows:<rows>/threads:<threads>" for one row (decode)
// and `many` (prefill). The op paths of float32 are all there are: avx512 and avx2.
template <class Body>
void register_settings(const std::string& name, const Body& body, std::int64_t many = 512) {
  for (const instruction_path path : supported_paths(dtype::float32)) {
    for (const std::int64_t rows : {std::int64_t{1}, many}) {
      for (const int threads : {1, 2}) {
        const vector_setting setting{path, rows, threads};
        const std::string label = name + "/" + std::string(to_string(path)) +
                                  "/rows:" + std::to_string(rows) +
                                  "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State& state) {
          body(state, setting);
        })->UseRealTime();
      }
    }
  }
}

// Counters of an op that moves `bytes` and whose arithmetic is not the point.
inline void report_bytes(benchmark::State& state, const machine_peaks& peaks, double bytes,
                         const vector_setting& setting) {
  report(state, peaks,
         {.bytes = bytes,
          .flops = 0,
          .threads = setting.threads,
          .path = setting.path,
          .type = dtype::float32});
}

}  // namespace troupe::kernels
