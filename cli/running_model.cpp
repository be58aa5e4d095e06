#include "cli/running_model.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

#include "engine/thread_executor.hpp"

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

std::uint64_t pss_bytes_of(const std::string& process) {
  std::ifstream file("/proc/" + process + "/smaps_rollup");
  std::string word;
  while (file >> word) {
    std::uint64_t kib = 0;
    if (word == "Pss:" && file >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace

base::result<running_model> start_model(const model_flags& flags, const opened_model& opened,
                                        const workload& load) {
  TROUPE_TRY(limits, choose_limits(flags, opened, load));
  running_model running;
  running.max_model_len = limits.max_model_len;
  load_progress progress(packed_bytes(opened),
                         flags.log_level == "warn" || flags.log_level == "error");
  const auto begin = std::chrono::steady_clock::now();
  engine::thread_executor_options options{
      .files = &opened.files,
      .config = opened.config,
      .tp_size = flags.tensor_parallel_size,
      .pp_size = flags.pipeline_parallel_size,
      .threads_per_rank = opened.threads_per_rank,
      .profile = opened.profile,
      .device = opened.device.get(),
      .collectives = collectives_of(flags),
      .kv_blocks = limits.kv_blocks,
      .max_num_batched_tokens = flags.max_num_batched_tokens,
      .max_num_seqs = flags.max_num_seqs,
      .progress = [&progress](std::uint64_t bytes) { progress(bytes); }};
  TROUPE_TRY(ranks, engine::thread_executor::start(std::move(options)));
  running.load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  running.peak_pss_bytes = progress.sample_memory();
  running.ranks = std::move(ranks);
  running.engine =
      std::make_unique<engine::engine>(*running.ranks, engine_options_of(flags, opened, limits));
  return running;
}

std::uint64_t resident_pss_bytes() { return pss_bytes_of("self"); }

std::vector<std::uint64_t> sibling_pss_bytes() {
  const std::string parent = std::to_string(getppid());
  std::ifstream children("/proc/" + parent + "/task/" + parent + "/children");
  std::vector<std::uint64_t> all;
  for (int child = 0; children >> child;) {
    if (child != getpid()) all.push_back(pss_bytes_of(std::to_string(child)));
  }
  return all;
}

}  // namespace troupe::cli
