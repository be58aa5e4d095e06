#include "cli/running_model.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "engine/kv_cache.hpp"

namespace troupe::cli {
namespace {

// Prints how much has been packed: in place on a terminal, else at each tenth.
class load_progress {
 public:
  load_progress(std::uint64_t total_bytes, bool quiet)
      : total_(std::max<std::uint64_t>(1, total_bytes)),
        quiet_(quiet),
        terminal_(isatty(STDERR_FILENO) == 1) {}

  // Units: bytes, the most seen so far.
  std::uint64_t sample_memory() {
    const std::uint64_t now = resident_pss_bytes();
    std::uint64_t peak = peak_pss_bytes_.load();
    while (now > peak && !peak_pss_bytes_.compare_exchange_weak(peak, now)) {
    }
    return std::max(now, peak);
  }

  void operator()(std::uint64_t bytes) {
    const auto tenth = static_cast<int>(std::min<std::uint64_t>(10, bytes * 10 / total_));
    int seen = tenth_.load();
    while (tenth > seen) {
      if (!tenth_.compare_exchange_weak(seen, tenth)) continue;
      sample_memory();
      if (quiet_ || std::chrono::steady_clock::now() - begin_ < silent_at_first) return;
      std::fprintf(stderr, "%sloading %d%% of %.2f GB%s", terminal_ ? "\r" : "", tenth * 10,
                   static_cast<double>(total_) / 1e9, terminal_ && tenth < 10 ? "" : "\n");
      return;
    }
  }

 private:
  static constexpr std::chrono::milliseconds silent_at_first{500};  // quick loads say nothing

  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::uint64_t total_;
  bool quiet_;
  bool terminal_;
  std::atomic<std::uint64_t> peak_pss_bytes_ = 0;
  std::atomic<int> tenth_ = 0;
};

// Positions the model is made for: linear and dynamic scaling stretch what it was trained on.
std::int64_t made_for(const models::model_config& config) {
  const bool stretched = config.rope.type == models::rope_type::linear ||
                         config.rope.type == models::rope_type::dynamic;
  const double factor = stretched ? std::max(1.0, config.rope.factor) : 1.0;
  return static_cast<std::int64_t>(static_cast<double>(config.max_position_embeddings) * factor);
}

base::result<std::int64_t> choose_max_model_len(const model_flags& flags,
                                                const models::model_config& config,
                                                const workload& load) {
  if (flags.max_model_len > 0) {
    if (load.positions <= flags.max_model_len) return flags.max_model_len;
    return base::fail(base::error_code::invalid_argument, "cli",
                      "prompt and answer need " + std::to_string(load.positions) +
                          " positions; --max-model-len is " + std::to_string(flags.max_model_len));
  }
  const std::int64_t derived = made_for(config);
  if (load.positions > derived) {
    std::fprintf(stderr,
                 "troupe: warning: %lld positions are more than the %lld the model is "
                 "made for\n",
                 static_cast<long long>(load.positions), static_cast<long long>(derived));
  }
  return std::max(derived, load.positions);
}

std::int64_t choose_kv_blocks(const model_flags& flags, const opened_model& opened,
                              const workload& load) {
  const auto blocks_for = [](std::int64_t positions) {
    return (positions + kernels::kv_block_tokens - 1) / kernels::kv_block_tokens;
  };
  if (opened.kv_cache_bytes == 0) {
    return blocks_for(load.positions) * std::min(load.sequences, flags.max_num_seqs);
  }
  std::int64_t largest = 1;  // bytes of a block on the rank that has most heads and layers
  for (int rank = 0; rank < flags.tensor_parallel_size * flags.pipeline_parallel_size; ++rank) {
    const models::placement where{.tp_rank = rank % flags.tensor_parallel_size,
                                  .tp_size = flags.tensor_parallel_size,
                                  .pp_rank = rank / flags.tensor_parallel_size,
                                  .pp_size = flags.pipeline_parallel_size};
    largest = std::max(
        largest, engine::kv_cache::block_bytes(opened.config, where, opened.profile.kv_cache));
  }
  return opened.kv_cache_bytes / largest;
}

std::uint64_t stored_bytes(const opened_model& opened) {
  std::uint64_t elements = 0;
  for (const models::tensor_info& tensor : opened.files.tensors()) {
    elements += tensor.bytes / std::max<std::size_t>(1, size_of(tensor.dtype));
  }
  return elements * size_of(opened.profile.weights);
}

}  // namespace

base::result<running_model> start_model(const model_flags& flags, const opened_model& opened,
                                        const workload& load) {
  TROUPE_TRY(max_model_len, choose_max_model_len(flags, opened.config, load));
  running_model running;
  running.max_model_len = max_model_len;
  const std::int64_t kv_blocks = choose_kv_blocks(flags, opened, load);
  load_progress progress(stored_bytes(opened),
                         flags.log_level == "warn" || flags.log_level == "error");
  const auto begin = std::chrono::steady_clock::now();
  engine::thread_executor_options options{
      .files = &opened.files,
      .config = opened.config,
      .tp_size = flags.tensor_parallel_size,
      .pp_size = flags.pipeline_parallel_size,
      .threads_per_rank = opened.threads_per_rank,
      .profile = opened.profile,
      .kv_blocks = kv_blocks,
      .max_num_batched_tokens = flags.max_num_batched_tokens,
      .max_num_seqs = flags.max_num_seqs,
      .progress = [&progress](std::uint64_t bytes) { progress(bytes); }};
  TROUPE_TRY(ranks, engine::thread_executor::start(std::move(options)));
  running.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  running.peak_pss_bytes = progress.sample_memory();
  running.ranks = std::move(ranks);
  const std::int64_t chunk = flags.long_prefill_token_threshold > 0
                                 ? flags.long_prefill_token_threshold
                                 : flags.max_num_batched_tokens;
  running.engine = std::make_unique<engine::engine>(
      *running.ranks,
      engine::engine_options{.planner = {.max_num_batched_tokens = flags.max_num_batched_tokens,
                                         .max_num_seqs = flags.max_num_seqs,
                                         .prefill_chunk = chunk,
                                         .blocks_per_group = kv_blocks,
                                         .groups = models::kv_groups(opened.config)},
                             .eos_token_ids = opened.config.eos_token_ids,
                             .max_model_len = running.max_model_len,
                             .vocab_size = opened.config.vocab_size});
  return running;
}

std::uint64_t resident_pss_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string word;
  while (file >> word) {
    std::uint64_t kib = 0;
    if (word == "Pss:" && file >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace troupe::cli
