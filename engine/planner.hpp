// The batch planner: which tokens of which sequences the next step computes, and in which blocks.
//
// A step goes through the sequences, oldest first, under a budget of tokens: one token of each that
// is decoding, a chunk of each whose prompt is not done. The ones that decode are the older ones,
// so a long prompt that arrives never stops them. A sequence without room takes the blocks of the
// youngest, which is computed again from its log later (preemption by recompute), so the oldest
// always finishes. A sequence that enters takes over the cached blocks of its beginning, whoever
// computed them (prefix cache). No tokens depend on any of this.
//
// next() may be asked while the step before runs: a sequence that this step draws for goes on with
// "the token of slot i". Ranks carry steps out one after the other, so blocks that change hands
// between two plans are safe; a row of a sequence that turns out to have ended is computed in vain.
//
// One thread. Bounds: max_num_seqs sequences run at once; the queue before them is the engine's.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "engine/block_pool.hpp"
#include "engine/logit_changes.hpp"
#include "engine/prefix_chain.hpp"
#include "engine/sequence_log.hpp"
#include "engine/step_plan.hpp"
#include "engine/token_constraint.hpp"
#include "models/model.hpp"

namespace troupe::engine {

struct planner_options {
  std::int64_t max_num_batched_tokens = 512;  // tokens a step
  std::int64_t max_num_seqs = 16;             // sequences in a step
  std::int64_t prefill_chunk = 512;           // tokens of one prompt a step
  std::int64_t blocks_per_group = 0;          // of 16 tokens each
  std::vector<models::kv_spec> groups = {};
  std::vector<std::int32_t> eos_token_ids = {};  // what min_tokens holds back
  std::int64_t max_model_len = std::numeric_limits<std::int64_t>::max();  // positions of a sequence
  prefix_cache_options prefix_cache = {.enabled = false};
};

// A sequence while it is in the engine: its log and what can be recomputed from it.
struct live_sequence {
  base::sequence_id id;
  sequence_log log;
  std::int64_t computed = 0;                            // positions whose K and V are in the cache
  std::vector<std::vector<std::int32_t>> block_tables;  // one a KV group; -1: out of the window
  std::int64_t stored = 0;                              // positions in blocks that were taken over
  std::int64_t kept_blocks = 0;  // of it, from its beginning, that others may find
  std::int64_t pending = 0;      // tokens that steps which have not ended draw for it
  std::uint32_t slot = 0;        // of the newest of them in its step
  std::int64_t scored = 1;       // tokens of the prompt whose logprobs are planned or known
  std::vector<sampled_token> prompt_logprobs;
  bool started = false;               // has computed something since it has blocks
  std::optional<prefix_chain> chain;  // none: nothing of it is shared
  std::uint32_t tenant = 0;
  std::unique_ptr<token_constraint> constraint;  // null: any text
  std::vector<std::uint32_t> mask;               // of the constraint, for the next token
  std::optional<logit_change_source> changes;    // none: the model's own logits
  // Of its first plan: tokens of the prompt that were found in the cache.
  std::optional<std::int64_t> cached_tokens;

  // Positions that are known or will be when the steps so far have ended.
  [[nodiscard]] std::int64_t length() const noexcept { return log.size() + pending; }
};

// What is changed in the logits of the token after the log's last: by the request and its grammar.
[[nodiscard]] std::optional<logit_changes> changes_of(const live_sequence& sequence);

// Units: tokens.
struct prefix_counts {
  std::uint64_t queried = 0;  // of sequences that were looked up
  std::uint64_t hit = 0;
};

class planner {
 public:
  explicit planner(planner_options options);

  [[nodiscard]] const planner_options& options() const noexcept { return options_; }

  void add(std::unique_ptr<live_sequence> sequence);
  // Frees its blocks. False: there is no such sequence.
  bool remove(base::sequence_id id);
  [[nodiscard]] live_sequence* find(base::sequence_id id) noexcept;

  // The next step's work; empty when there is none, or none before the step that runs has ended.
  // The planned tokens count as computed. At most one step is planned and not accepted.
  [[nodiscard]] step_plan next(base::epoch_id epoch);
  // A step has drawn this token: the log takes it.
  void accept(live_sequence& sequence, std::int32_t token_id);

  [[nodiscard]] std::size_t sequences() const noexcept { return sequences_.size(); }
  // Those that have a place in the cache.
  [[nodiscard]] std::size_t running() const noexcept;
  // Whether it has positions in the cache: something of it has been planned.
  [[nodiscard]] bool is_running(base::sequence_id id) const noexcept;
  [[nodiscard]] std::uint64_t preemptions() const noexcept { return preemptions_; }
  [[nodiscard]] const prefix_counts& prefixes() const noexcept { return prefixes_; }
  [[nodiscard]] std::int64_t free_blocks() const noexcept;

 private:
  void take_over_prefix(live_sequence& sequence);
  void note_start(live_sequence& sequence);
  [[nodiscard]] std::int64_t cached_blocks(const live_sequence& sequence) const;
  [[nodiscard]] std::int64_t first_visible_block(const live_sequence& sequence, std::size_t group,
                                                 std::int64_t blocks) const;
  void keep_full_blocks(live_sequence& sequence);
  [[nodiscard]] bool ends_with_pending(const live_sequence& sequence) const noexcept;
  [[nodiscard]] bool reserve(live_sequence& sequence, std::int64_t positions);
  void drop_out_of_window(live_sequence& sequence);
  void release(live_sequence& sequence);
  // Takes the blocks of the youngest sequence from index `first` on that has any. False: none has.
  [[nodiscard]] bool preempt_youngest(std::size_t first);
  [[nodiscard]] planned_rows plan_rows(live_sequence& sequence, std::int64_t tokens);
  [[nodiscard]] static sample_request request_of(const live_sequence& sequence);
  // Of the `tokens` rows from `from` on.
  [[nodiscard]] static std::optional<scored_rows> scored_of(live_sequence& sequence,
                                                            std::int64_t from, std::int64_t tokens);

  planner_options options_;
  std::vector<block_pool> pools_;                         // one a KV group
  std::deque<std::unique_ptr<live_sequence>> sequences_;  // oldest first
  std::unordered_map<std::uint64_t, live_sequence*> by_id_;
  std::uint64_t steps_ = 0;
  std::uint64_t preemptions_ = 0;
  prefix_counts prefixes_;
  std::map<std::string, std::uint32_t> tenants_;
};

}  // namespace troupe::engine
