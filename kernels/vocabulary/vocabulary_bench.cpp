// The largest common vocabulary, over its 8 canonical runs. Flat logits are the worst case: every
// group of tokens could win, so its noise is computed; peaked ones are what a model gives.
#include "kernels/vector_bench.hpp"
#include "kernels/vocabulary/vocabulary.hpp"

namespace troupe::kernels {
namespace {

constexpr std::int64_t vocabulary = 151'936;
constexpr std::int64_t unit_rows = 64;

struct vocabulary_setting {
  float temperature = 0.0F;
  int candidates = 0;
  float spread = 3.0F;  // standard deviation of the logits
};

void run(benchmark::State& state, const machine_peaks& peaks, const vector_setting& setting,
         const vocabulary_setting& of) {
  thread_pool pool({.threads = setting.threads});
  const buffer logits = bench_matrix(setting.rows, vocabulary, of.spread);
  std::vector<std::int64_t> ends;
  for (std::int64_t run = 1; run <= 8; ++run) {
    ends.push_back(vocabulary / unit_rows * run / 8 * unit_rows);
  }
  const std::vector<sampling_row> sampling(
      static_cast<std::size_t>(setting.rows),
      {.temperature = of.temperature, .seed = 7, .choice = 0, .token_index = 3});
  std::vector<run_summary> summaries(sampling.size() * 8);
  std::vector<token_candidate> top(summaries.size() * static_cast<std::size_t>(of.candidates));
  for (auto _ : state) {
    summarise_vocabulary(setting.path, pool,
                         {.logits = logits.view(dtype::float32, setting.rows, vocabulary),
                          .run_ends = ends,
                          .first_token_id = 0,
                          .rows = sampling,
                          .candidates = of.candidates,
                          .summaries = summaries,
                          .top = top});
  }
  report_bytes(state, peaks, 4.0 * static_cast<double>(setting.rows * vocabulary), setting);
}

}  // namespace

void register_vocabulary_benchmarks(const machine_peaks& peaks) {
  constexpr std::int64_t batch = 16;  // sequences decoding together
  const auto add = [&peaks](const char* name, vocabulary_setting of) {
    const auto body = [&peaks, of](benchmark::State& state, const vector_setting& setting) {
      run(state, peaks, setting, of);
    };
    register_settings(name, body, batch);
  };
  add("vocabulary/greedy", {.temperature = 0.0F, .candidates = 1});
  add("vocabulary/sampled", {.temperature = 0.7F, .candidates = 64});
  add("vocabulary/sampled_flat", {.temperature = 1.0F, .candidates = 64, .spread = 0.1F});
  add("vocabulary/top_1024", {.temperature = 0.7F, .candidates = 1024});
}

}  // namespace troupe::kernels
