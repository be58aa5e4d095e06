// Packing of weights as loading does it, and the rows of the embedding.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "kernels/embed/embed.hpp"
#include "kernels/kernels_bench.hpp"
#include "kernels/packed_tensor.hpp"

namespace troupe::kernels {
namespace {

constexpr std::int64_t outputs = 16384;
constexpr std::int64_t inputs = 4096;
constexpr std::int64_t piece = 256;  // outputs of one task

void pack(benchmark::State& state, const machine_peaks& peaks, source_dtype source, dtype type,
          quantisation kind, int threads) {
  thread_pool pool({.threads = threads});
  packed_tensor made = *packed_tensor::allocate(
      {.outputs = outputs, .run_ends = {inputs}, .type = type, .kind = kind});
  const std::size_t piece_bytes = static_cast<std::size_t>(piece * inputs) * size_of(source);
  const std::vector<std::byte> rows(piece_bytes * (outputs / piece), std::byte{0x3C});
  const bench_clock clock;
  for (auto _ : state) {
    pool.parallel_for(outputs / piece, [&](std::int64_t index, int) {
      made.pack({.rows = std::span(rows).subspan(static_cast<std::size_t>(index) * piece_bytes,
                                                 piece_bytes),
                 .source = source,
                 .first_output = index * piece,
                 .outputs = piece});
    });
  }
  report(state, peaks,
         {.seconds = clock.seconds(),
          .bytes = static_cast<double>(rows.size() + made.bytes()),
          .threads = threads});
}

void embed_rows(benchmark::State& state, const machine_peaks& peaks, dtype type, int threads) {
  thread_pool pool({.threads = threads});
  const packed_tensor table =
      *packed_tensor::allocate({.outputs = outputs, .run_ends = {inputs}, .type = type});
  std::vector<std::int32_t> ids(512);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * 7919 % outputs);
  }
  const buffer output = *buffer::allocate(ids.size() * inputs * 4, "output");
  const bench_clock clock;
  for (auto _ : state) {
    embed(pool,
          {.table = &table, .local_ids = ids, .output = output.view(dtype::float32, 512, inputs)});
  }
  report(state, peaks,
         {.seconds = clock.seconds(),
          .bytes = static_cast<double>(ids.size() * inputs * (4 + size_of(type))),
          .threads = threads});
}

}  // namespace

void register_packed_tensor_benchmarks(const machine_peaks& peaks) {
  const auto add = [&](const std::string& title, int threads, auto body) {
    benchmark::RegisterBenchmark((title + "/threads:" + std::to_string(threads)).c_str(), body)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  };
  for (const int threads : {1, 2}) {
    using enum quantisation;
    for (const auto& [name, source, type, kind] :
         {std::tuple("pack/bfloat16_to_bfloat16", source_dtype::bfloat16, dtype::bfloat16, none),
          std::tuple("pack/float16_to_bfloat16", source_dtype::float16, dtype::bfloat16, none),
          std::tuple("pack/float32_to_bfloat16", source_dtype::float32, dtype::bfloat16, none),
          std::tuple("pack/bfloat16_to_float32", source_dtype::bfloat16, dtype::float32, none),
          std::tuple("pack/float32_to_float32", source_dtype::float32, dtype::float32, none),
          std::tuple("pack/bfloat16_to_int8", source_dtype::bfloat16, dtype::bfloat16, int8_runs),
          std::tuple("pack/bfloat16_to_int4", source_dtype::bfloat16, dtype::bfloat16,
                     int4_groups)}) {
      add(name, threads, [&peaks, source, type, kind, threads](benchmark::State& state) {
        pack(state, peaks, source, type, kind, threads);
      });
    }
    for (const dtype type : {dtype::bfloat16, dtype::float32}) {
      add("embed/512_rows/" + std::string(to_string(type)), threads,
          [&peaks, type, threads](benchmark::State& state) {
            embed_rows(state, peaks, type, threads);
          });
    }
  }
}

}  // namespace troupe::kernels
