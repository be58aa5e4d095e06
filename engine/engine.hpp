// The step loop: sequences in, tokens out, one step at a time.
//
// With `plan_ahead` the next step is planned while one runs, and begins before the tokens of that
// one are looked at: ranks never wait for the engine or its user. What is added or
// removed then counts from the step after the one that runs. Tokens are the same either way.
//
// add() admits a log (new, or one that has already emitted tokens: it continues with the same
// bits); step() plans, runs and returns what was emitted. The engine owns each sequence's log until
// it ends or is removed. One thread.
//
//   engine::engine engine(executor, {.planner = ..., .eos_token_ids = config.eos_token_ids});
//   TROUPE_TRY(id, engine.add({.params = params, .prompt_ids = ids}));
//   while (!engine.idle()) { TROUPE_TRY(events, engine.step()); ... }
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "engine/admission.hpp"
#include "engine/executor.hpp"
#include "engine/planner.hpp"
#include "engine/step_pipeline.hpp"

namespace troupe::engine {

struct engine_options {
  planner_options planner;
  std::vector<std::int32_t> eos_token_ids = {};
  std::int64_t max_model_len = 0;         // positions of one sequence
  std::int64_t vocab_size = 0;            // prompt ids are checked against it
  std::int64_t max_queued_seqs = 4096;    // sequences admitted and not ended; more are refused
  constraint_maker make_constraint = {};  // none: a request with a grammar is refused
  bool plan_ahead = false;                // the next step is planned while one runs

  [[nodiscard]] admission_limits limits() const {
    return {.max_model_len = max_model_len,
            .vocab_size = vocab_size,
            .kv_blocks = planner.blocks_per_group,
            .eos_token_ids = eos_token_ids};
  }
};

// One token of one sequence, in the order of emission.
struct engine_event {
  sampled_token token;
  std::optional<finish_reason> finished;
  // With a sequence's first token: how much of its prompt was in the cache.
  std::optional<std::int64_t> cached_tokens = {};
  // With it too, where asked for: of the prompt's tokens from the second on.
  std::vector<sampled_token> prompt_logprobs = {};
  // Set instead of a token when the sequence failed (logits that are not numbers); it is gone.
  std::optional<base::error> failed;
};

class engine {
 public:
  // Lifetime: the executor outlives the engine.
  engine(executor& ranks, engine_options options);

  // Errors: those of check_admission, of the grammar, resource_exhausted (queue full).
  [[nodiscard]] base::result<base::sequence_id> add(sequence_log log);

  // Ends a sequence between steps. False: it is not there (any more).
  bool remove(base::sequence_id id);

  [[nodiscard]] bool idle() const noexcept { return planner_.sequences() == 0; }

  // Waits for one step and tells what it drew; nothing, where all it computed has been removed.
  // Errors: those of the executor; after one the engine is dead, the logs are still there.
  [[nodiscard]] base::result<std::vector<engine_event>> step();

  // The log of a sequence that has not ended; nullptr when it has.
  [[nodiscard]] const sequence_log* log(base::sequence_id id) noexcept;

  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }  // that have ended
  // Those that have ended or run.
  [[nodiscard]] std::uint64_t steps_begun() const noexcept { return steps_ + open_steps_.size(); }
  // Tokens of prompts that were computed, again after a preemption.
  [[nodiscard]] std::uint64_t prefill_tokens() const noexcept { return prefill_tokens_; }
  [[nodiscard]] std::size_t sequences() const noexcept { return planner_.sequences(); }
  // Sequences that hold blocks.
  [[nodiscard]] std::size_t running() const noexcept { return planner_.running(); }
  [[nodiscard]] bool is_running(base::sequence_id id) const noexcept {
    return planner_.is_running(id);
  }
  [[nodiscard]] std::uint64_t preemptions() const noexcept { return planner_.preemptions(); }
  [[nodiscard]] const prefix_counts& prefixes() const noexcept { return planner_.prefixes(); }
  [[nodiscard]] std::int64_t free_blocks() const noexcept { return planner_.free_blocks(); }

 private:
  // A step that has been planned and not ended.
  struct open_step {
    std::uint64_t prefill_tokens = 0;
    std::vector<base::sequence_id> following;  // whose changes_follow, in the plan's order
  };
  [[nodiscard]] static open_step open_step_of(const step_plan& plan);
  // Plans and begins a step; false: there is nothing to do yet.
  [[nodiscard]] bool begin_step();
  // What the step that has begun meanwhile waits for.
  void provide_changes();
  // None: the sequence has been removed since it was planned.
  [[nodiscard]] std::optional<engine_event> accept(sampled_token token);
  [[nodiscard]] base::result<void> constrain(live_sequence& sequence) const;
  // By a token that the log has taken.
  [[nodiscard]] static base::result<void> advance_constraint(live_sequence& sequence,
                                                             std::int32_t token_id);

  executor& ranks_;
  engine_options options_;
  planner planner_;
  std::deque<open_step> open_steps_;  // oldest first, all in the pipeline
  step_pipeline pipeline_;
  std::optional<base::error> failed_;
  std::uint64_t next_id_ = 1;
  std::uint64_t steps_ = 0;
  std::uint64_t prefill_tokens_ = 0;
};

}  // namespace troupe::engine
