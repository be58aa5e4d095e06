// What one engine step computes: made once by the planner, carried out alike by every rank.
//
// Plain values, so that it travels as one message over the data plane (step_plan.capnp). A plan
// names cache blocks but no addresses.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/ids.hpp"
#include "schemas/sequence_log.hpp"

namespace troupe::schemas {

// How one row of logits is to be drawn from.
struct draw_key {
  float temperature = 0.0F;  // 0: greedy
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  std::uint64_t token_index = 0;  // of the token to be drawn, counted from the prompt's end
};

struct token_count {
  std::int32_t token_id = 0;
  std::int32_t in_answer = 0;  // 0: in the prompt only
  friend bool operator==(const token_count&, const token_count&) = default;
};

// What is done to a row of logits before it is drawn from, in the order of the fields.
struct logit_changes {
  std::vector<token_bias> bias = {};  // different tokens
  float repetition_penalty = 1.0F;
  float frequency_penalty = 0.0F;
  float presence_penalty = 0.0F;
  std::vector<token_count> counts = {};  // that the penalties look at; different tokens
  std::vector<std::int32_t> forbidden = {};
  // Bit i % 32 of word i / 32 allows token i; empty: all are allowed.
  std::vector<std::uint32_t> allowed = {};
};

// How the token after a sequence's last planned one is drawn.
struct sample_request {
  draw_key row;
  float top_p = 1.0F;
  std::int32_t top_k = 0;
  std::int32_t logprobs = -1;
  float min_p = 0.0F;
  std::optional<logit_changes> changes = {};  // none: the model's own logits
  // They depend on a token of the step before: a following_changes has them in time for the draw.
  bool changes_follow = false;
};

// Rows whose successor is given: how likely the model takes it to be.
struct scored_rows {
  std::int64_t first_row = 0;           // among the sequence's planned ones
  std::int32_t logprobs = 0;            // of the most likely others
  std::vector<std::int32_t> token_ids;  // the successor of each row from there on; at least one
};

// Consecutive tokens of one sequence.
struct planned_rows {
  base::sequence_id sequence;
  std::int64_t first_position = 0;
  std::int64_t prompt_length = 0;  // rotations that depend on length need it
  // K and V of positions below this are in the cache, in blocks that others may share: they are
  // read, never written. The last one is computed again where only its logits are missing.
  std::int64_t stored = 0;
  std::vector<std::int32_t> token_ids;  // at least one
  // The last of token_ids is not known yet (0 stands there): it is the token of this slot of the
  // step before, which ran when this plan was made.
  std::optional<std::uint32_t> last_token_slot = {};
  std::vector<std::vector<std::int32_t>> block_tables;  // one a KV group
  std::optional<sample_request> sample;                 // none in the middle of a prompt
  std::optional<scored_rows> scored = {};
  // In the wire from the first day; a rank that does not know how refuses the plan.
  std::optional<std::uint32_t> adapter_id = {};    // LoRA
  std::optional<std::uint32_t> row_group = {};     // which data-parallel group computes the rows
  std::vector<std::int32_t> draft_token_ids = {};  // to be verified after token_ids
};

struct step_plan {
  base::epoch_id epoch;
  std::uint64_t step = 0;
  std::vector<planned_rows> sequences;
  std::optional<std::uint32_t> model_id = {};  // one of several models of a gang

  [[nodiscard]] std::int64_t tokens() const noexcept {
    std::int64_t sum = 0;
    for (const planned_rows& rows : sequences) {
      sum += static_cast<std::int64_t>(rows.token_ids.size());
    }
    return sum;
  }
};

struct token_logprob {
  std::int32_t token_id = 0;
  float logprob = 0.0F;
};

struct sampled_token {
  base::sequence_id sequence;
  std::int32_t token_id = 0;
  float logprob = 0.0F;            // of the model's own distribution, before temperature
  std::vector<token_logprob> top;  // the sample_request's `logprobs` most likely, best first
  bool finite = true;              // false: the logits were not numbers; token_id means nothing
  bool allowed = true;             // false: every token is forbidden; token_id means nothing
};

// One entry a planned sequence that asked for a sample, in the plan's order: its slot.
struct step_result {
  std::vector<sampled_token> tokens;
  std::vector<sampled_token> scored = {};  // one entry a scored row, in the plan's order
};

// One entry a planned sequence whose changes_follow, in the plan's order.
struct following_changes {
  std::uint64_t step = 0;
  std::vector<logit_changes> rows;
};

}  // namespace troupe::schemas
