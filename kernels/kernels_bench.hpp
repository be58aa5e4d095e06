// What the benchmarks of all ops share: the machine's peaks, measured once when the program starts,
// and the counters that every benchmark prints.
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <map>
#include <tuple>

#include "kernels/machine_peak.hpp"

namespace troupe::kernels {

// By threads in use.
struct machine_peaks {
  std::map<int, double> read_gbytes;
  // int4's are int8's.
  std::map<std::tuple<int, instruction_path, dtype, quantisation>, double> gflops;
};

// What all iterations of a benchmark took, by the wall clock.
class bench_clock {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

struct bench_work {
  double seconds = 0;  // of all iterations: made before the loop, read right after it
  double bytes = 0;    // read or written, of one iteration
  double flops = 0;
  int threads = 1;
  instruction_path path = instruction_path::avx2;
  dtype type = dtype::float32;
  quantisation kind = quantisation::none;
};

// Sets the counters B/s, FLOP/s and their shares of the peaks in percent.
void report(benchmark::State& state, const machine_peaks& peaks, const bench_work& work);

// One for each op; called by the program's main.
void register_matmul_benchmarks(const machine_peaks& peaks);
void register_packed_tensor_benchmarks(const machine_peaks& peaks);
void register_attention_benchmarks(const machine_peaks& peaks);

}  // namespace troupe::kernels
