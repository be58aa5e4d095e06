// Runs of a small real model through checkpoint, config, thread_executor and engine, with the bits
// of what they give.
//
//   loaded_model model(models_folder() / "llama_plain");
//   const auto ranks = model.start({.tp_size = 2});
//   const std::vector<completion> done = complete(*ranks, model, {log});
#pragma once

#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.hpp"
#include "engine/thread_executor.hpp"
#include "tests/golden/golden_case.hpp"

namespace troupe::golden {

// How a model is spread and fed. None of it may change a bit.
struct run_shape {
  int tp_size = 1;
  int pp_size = 1;
  int threads = 1;
  std::int64_t chunk = 2048;  // tokens of one prompt a step
  std::int64_t kv_blocks = 512;
  bool plan_ahead = true;
};

inline std::ostream& operator<<(std::ostream& out, const run_shape& of) {
  return out << "tp " << of.tp_size << " pp " << of.pp_size << " threads " << of.threads
             << " chunk " << of.chunk << " kv_blocks " << of.kv_blocks;
}

[[nodiscard]] inline engine::sequence_log log_of(engine::sampling_params params,
                                                 std::vector<std::int32_t> prompt_ids) {
  engine::sequence_log log;
  log.params = std::move(params);
  log.prompt_ids = std::move(prompt_ids);
  return log;
}

// Greedy, whatever the end-of-sequence tokens say.
[[nodiscard]] inline engine::sampling_params greedy_params(std::int64_t max_tokens) {
  engine::sampling_params params;
  params.temperature = 0.0F;
  params.max_tokens = max_tokens;
  params.ignore_eos = true;
  return params;
}

struct token_bits {
  std::int32_t token_id = 0;
  float logprob = 0.0F;
  std::vector<engine::token_logprob> top = {};
  friend bool operator==(const token_bits& a, const token_bits& b) {
    const auto same = [](float x, float y) {
      return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
    };
    if (a.token_id != b.token_id || !same(a.logprob, b.logprob)) return false;
    return std::equal(a.top.begin(), a.top.end(), b.top.begin(), b.top.end(),
                      [&](const auto& x, const auto& y) {
                        return x.token_id == y.token_id && same(x.logprob, y.logprob);
                      });
  }
};

inline std::ostream& operator<<(std::ostream& out, const token_bits& of) {
  out << of.token_id << " (" << std::hexfloat << of.logprob << std::defaultfloat << ")";
  return out;
}

struct completion {
  std::vector<token_bits> tokens;
  std::optional<engine::finish_reason> finished;
};

class loaded_model {
 public:
  explicit loaded_model(const std::filesystem::path& folder)
      : files_(must(models::checkpoint::open(folder))),
        config_(must(models::read_config(folder))) {}

  [[nodiscard]] const models::model_config& config() const noexcept { return config_; }
  [[nodiscard]] const models::checkpoint& files() const noexcept { return files_; }

  [[nodiscard]] base::result<std::unique_ptr<engine::thread_executor>> try_start(
      kernels::numerics_profile profile, const run_shape& shape) const {
    return engine::thread_executor::start({.files = &files_,
                                           .config = config_,
                                           .tp_size = shape.tp_size,
                                           .pp_size = shape.pp_size,
                                           .threads_per_rank = shape.threads,
                                           .profile = profile,
                                           .kv_blocks = shape.kv_blocks,
                                           .max_num_batched_tokens = batched_tokens,
                                           .max_num_seqs = batched_sequences,
                                           .progress = {}});
  }
  [[nodiscard]] std::unique_ptr<engine::thread_executor> start(kernels::numerics_profile profile,
                                                               const run_shape& shape = {}) const {
    return must(try_start(profile, shape));
  }

  // Positions are not limited by the trained length: dynamic scaling is there to go beyond it.
  [[nodiscard]] engine::engine_options options(const run_shape& shape = {}) const {
    return {.planner = {.max_num_batched_tokens = batched_tokens,
                        .max_num_seqs = batched_sequences,
                        .prefill_chunk = shape.chunk,
                        .blocks_per_group = shape.kv_blocks,
                        .groups = models::kv_groups(config_)},
            .eos_token_ids = config_.eos_token_ids,
            .max_model_len = 4096,
            .vocab_size = config_.vocab_size,
            .plan_ahead = shape.plan_ahead};
  }

  static constexpr std::int64_t batched_tokens = 2048;
  static constexpr std::int64_t batched_sequences = 16;

 private:
  models::checkpoint files_;
  models::model_config config_;
};

inline kernels::numerics_profile profile_of(
    kernels::instruction_path path, kernels::dtype type,
    kernels::quantisation kind = kernels::quantisation::none) {
  return {.path = path, .weights = type, .kv_cache = type, .kept = kind};
}

// Steps the engine until it is idle; what each sequence emitted, by id.
inline std::map<std::uint64_t, completion> drain(engine::engine& of) {
  std::map<std::uint64_t, completion> done;
  while (!of.idle()) {
    for (engine::engine_event& event : must(of.step())) {
      if (event.failed) throw std::runtime_error(event.failed->message);
      completion& own = done[event.token.sequence.value];
      own.tokens.push_back({event.token.token_id, event.token.logprob, std::move(event.token.top)});
      own.finished = event.finished;
    }
  }
  return done;
}

// Runs all logs together to their ends, in the order given.
inline std::vector<completion> complete(engine::executor& ranks, engine::engine_options options,
                                        const std::vector<engine::sequence_log>& logs) {
  engine::engine engine(ranks, std::move(options));
  std::vector<base::sequence_id> ids;
  for (const engine::sequence_log& log : logs) ids.push_back(must(engine.add(log)));
  std::map<std::uint64_t, completion> done = drain(engine);
  std::vector<completion> ordered;
  for (const base::sequence_id id : ids) ordered.push_back(std::move(done[id.value]));
  return ordered;
}

}  // namespace troupe::golden
