// Attention of one layer of a 0.6 B model (16 query heads, 8 of the cache, head_dim 128): prefill
// of a prompt and decode of one token, for every path.
#include <benchmark/benchmark.h>

#include <bit>
#include <numeric>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "kernels/buffer.hpp"
#include "kernels/kernels_bench.hpp"

namespace troupe::kernels {
namespace {

constexpr std::int64_t heads = 16;
constexpr std::int64_t kv_heads = 8;
constexpr std::int64_t head_dim = 128;

struct shape {
  instruction_path path = instruction_path::avx2;
  dtype cache = dtype::bfloat16;
  std::int64_t first_position = 0;
  std::int64_t rows = 1;
  int threads = 1;
  std::int64_t layers = 1;  // caches taken in turn, so that decode reads from memory
};

void fill(const buffer& memory, dtype type) {
  std::uint32_t state = 1;
  const auto next = [&] {
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
  };
  if (type == dtype::float32) {
    for (float& value : memory.as<float>()) value = next();
  } else {
    for (std::uint16_t& value : memory.as<std::uint16_t>()) {
      value = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(next()) >> 16);
    }
  }
}

void run(benchmark::State& state, const machine_peaks& peaks, const shape& of) {
  thread_pool pool({.threads = of.threads});
  attention_scratch scratch;
  const std::int64_t end = of.first_position + of.rows;
  const std::int64_t blocks = (end + kv_block_tokens - 1) / kv_block_tokens;
  const auto elements =
      static_cast<std::size_t>(of.layers * kv_heads * blocks * kv_block_tokens * head_dim);
  const buffer keys = *buffer::allocate(elements * size_of(of.cache), "keys");
  const buffer values = *buffer::allocate(elements * size_of(of.cache), "values");
  const auto floats = static_cast<std::size_t>(of.rows * heads * head_dim);
  const buffer query = *buffer::allocate(floats * sizeof(float), "queries");
  const buffer output = *buffer::allocate(floats * sizeof(float), "output");
  fill(keys, of.cache);
  fill(values, of.cache);
  fill(query, dtype::float32);
  std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < table.size(); ++i) {  // scattered, as after a day of serving
    table[i] = static_cast<std::int32_t>(i);
    std::swap(table[i], table[i * 7919 % (i + 1)]);
  }
  std::vector<std::int32_t> kv_head_of(heads);
  for (std::size_t h = 0; h < kv_head_of.size(); ++h) {
    kv_head_of[h] = static_cast<std::int32_t>(h / (heads / kv_heads));
  }
  const std::vector<sequence_rows> sequences{
      {.first_row = 0, .rows = of.rows, .first_position = of.first_position, .block_table = table}};
  const std::size_t layer_bytes =
      elements / static_cast<std::size_t>(of.layers) * size_of(of.cache);
  std::int64_t layer = 0;
  for (auto _ : state) {
    const std::size_t offset = static_cast<std::size_t>(layer++ % of.layers) * layer_bytes;
    attention(
        of.path, pool,
        {.query = as_heads(query.view(dtype::float32, of.rows, heads * head_dim), head_dim),
         .cache = {.keys = {device_kind::cpu, keys.data() + offset},
                   .values = {device_kind::cpu, values.data() + offset},
                   .type = of.cache,
                   .heads = kv_heads,
                   .head_dim = head_dim,
                   .blocks = blocks},
         .kv_head_of = kv_head_of,
         .sequences = sequences,
         .scale = 0.0884F,
         .window = std::nullopt,
         .output = as_heads(output.view(dtype::float32, of.rows, heads * head_dim), head_dim)},
        scratch);
  }
  const auto pairs = static_cast<double>(of.rows) * (static_cast<double>(of.first_position) +
                                                     static_cast<double>(of.rows + 1) / 2);
  report(state, peaks,
         {.bytes = 2.0 * static_cast<double>(end * kv_heads * head_dim) *
                   static_cast<double>(size_of(of.cache)),
          .flops = 4.0 * pairs * heads * head_dim,
          .threads = of.threads,
          .path = of.path,
          .type = of.cache});
}

void register_shape(const machine_peaks& peaks, const std::string& name, shape of) {
  for (const instruction_path path : supported_paths(dtype::bfloat16)) {
    for (const dtype cache : {dtype::bfloat16, dtype::float32}) {
      if (cache == dtype::float32 && path == instruction_path::amx_bf16) continue;
      for (const int threads : {1, 2}) {
        of.path = path;
        of.cache = cache;
        of.threads = threads;
        benchmark::RegisterBenchmark(
            ("attention/" + name + "/" + std::string(to_string(path)) + "/kv_" +
             std::string(to_string(cache)) + "/threads:" + std::to_string(threads))
                .c_str(),
            [peaks, of](benchmark::State& state) { run(state, peaks, of); })
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace

void register_attention_benchmarks(const machine_peaks& peaks) {
  register_shape(peaks, "prefill_512", {.rows = 512});
  register_shape(peaks, "prefill_4096", {.rows = 4096});
  register_shape(peaks, "prefill_64_at_4096", {.first_position = 4096, .rows = 64});
  register_shape(peaks, "decode_512", {.first_position = 511, .rows = 1, .layers = 128});
  register_shape(peaks, "decode_4096", {.first_position = 4095, .rows = 1, .layers = 28});
  register_shape(peaks, "decode_32768", {.first_position = 32767, .rows = 1, .layers = 4});
}

}  // namespace troupe::kernels
