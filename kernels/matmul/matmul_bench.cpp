// Matrix products of a 0.6 B model (hidden_size 1024, intermediate_size 3072) and of larger ones.
// Decode takes as many matrices in turn as exceed the caches, prefill one.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/kernels_bench.hpp"
#include "kernels/matmul/matmul.hpp"

namespace troupe::kernels {
namespace {

constexpr std::size_t cold_bytes = std::size_t{600} << 20;

struct shape {
  std::int64_t rows = 1;
  std::int64_t inputs = 0;
  std::int64_t outputs = 0;
  std::int64_t runs = 1;
  int threads = 1;
  instruction_path path = instruction_path::avx2;
  dtype type = dtype::bfloat16;
  quantisation kind = quantisation::none;
};

// Written all over: pages never written would all be the one zero page, always in L1.
packed_tensor make_weights(const shape& of) {
  packed_shape packed{.outputs = of.outputs, .run_ends = {}, .type = of.type, .kind = of.kind};
  for (std::int64_t run = 1; run <= of.runs; ++run) {
    packed.run_ends.push_back(of.inputs / 32 * run / of.runs * 32);
  }
  packed_tensor made = *packed_tensor::allocate(packed);
  const std::vector<std::byte> rows(static_cast<std::size_t>(16 * of.inputs) * size_of(of.type),
                                    std::byte{0x3C});
  const source_dtype source =
      of.type == dtype::float32 ? source_dtype::float32 : source_dtype::bfloat16;
  for (std::int64_t first = 0; first + 16 <= of.outputs; first += 16) {
    made.pack({.rows = rows, .source = source, .first_output = first, .outputs = 16});
  }
  return made;
}

void run(benchmark::State& state, const machine_peaks& peaks, const shape& of) {
  thread_pool pool({.threads = of.threads});
  matmul_scratch scratch;
  std::vector<packed_tensor> weights;
  std::size_t bytes = 0;
  do {
    weights.push_back(make_weights(of));
    bytes += weights.back().bytes();
  } while (bytes < cold_bytes && of.rows <= 16);
  const buffer input =
      *buffer::allocate(static_cast<std::size_t>(of.rows * of.inputs) * size_of(of.type), "input");
  const buffer output =
      *buffer::allocate(static_cast<std::size_t>(of.rows * of.outputs) * 4, "output");
  std::memset(input.data(), 0x3C, input.size());
  std::memset(output.data(), 0x3C, output.size());
  std::size_t turn = 0;
  const bench_clock clock;
  for (auto _ : state) {
    matmul(of.path, pool,
           {.input = input.view(of.type, of.rows, of.inputs),
            .weights = &weights[turn++ % weights.size()],
            .bias = {},
            .output = output.view(dtype::float32, of.rows, of.outputs)},
           scratch);
  }
  report(state, peaks,
         {.seconds = clock.seconds(),
          .bytes = static_cast<double>(weights[0].bytes()),
          .flops = 2.0 * static_cast<double>(of.rows * of.inputs * of.outputs),
          .threads = of.threads,
          .path = of.path,
          .type = of.type,
          .kind = of.kind});
}

void register_shape(const machine_peaks& peaks, const char* name, shape of) {
  for (const auto& [weights, type, kind] :
       {std::tuple("bfloat16", dtype::bfloat16, quantisation::none),
        std::tuple("int8", dtype::bfloat16, quantisation::int8_runs),
        std::tuple("int4", dtype::bfloat16, quantisation::int4_groups),
        std::tuple("float32", dtype::float32, quantisation::none)}) {
    for (const instruction_path path : supported_paths(type)) {
      for (const int threads : {1, 2}) {
        of.type = type;
        of.kind = kind;
        of.path = path;
        of.threads = threads;
        const std::string title =
            std::string("matmul/") + name + "/rows:" + std::to_string(of.rows) + "/" +
            std::to_string(of.inputs) + "x" + std::to_string(of.outputs) +
            "/runs:" + std::to_string(of.runs) + "/" + std::string(to_string(path)) + "/" +
            weights + "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(
            title.c_str(), [&peaks, of](benchmark::State& state) { run(state, peaks, of); })
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace

void register_matmul_benchmarks(const machine_peaks& peaks) {
  for (const std::int64_t rows : {1, 4, 8, 16, 32}) {
    register_shape(peaks, "decode", {.rows = rows, .inputs = 1024, .outputs = 3072});
    register_shape(peaks, "decode", {.rows = rows, .inputs = 3072, .outputs = 1024, .runs = 8});
    register_shape(peaks, "decode", {.rows = rows, .inputs = 1024, .outputs = 6144});
    register_shape(peaks, "decode", {.rows = rows, .inputs = 1024, .outputs = 151936});
  }
  for (const std::int64_t rows : {64, 512}) {
    register_shape(peaks, "prefill", {.rows = rows, .inputs = 1024, .outputs = 6144});
    register_shape(peaks, "prefill", {.rows = rows, .inputs = 3072, .outputs = 1024, .runs = 8});
    register_shape(peaks, "prefill", {.rows = rows, .inputs = 4096, .outputs = 4096});
  }
}

}  // namespace troupe::kernels
