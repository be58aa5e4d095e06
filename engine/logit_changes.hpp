// What a request changes in the model's logits before a token is drawn: penalties, biases, words
// that must not come, tokens that a grammar allows.
//
// Rank 0 says what to do (logit_change_source, out of the sequence's log), in the plan; the ranks
// of the last stage do it, each to its own part of the vocabulary. The same float32 operations on
// each element whatever the cut, so the bits stay.
//
//   logit_change_source source(log.params, log.prompt_ids, eos_token_ids);
//   source.accept(token_id);                       // of every emitted token
//   if (source.active()) request.changes = source.next(log);
//   engine::apply(changes, first_token_id, logits);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/error.hpp"
#include "engine/sequence_log.hpp"
#include "engine/step_plan.hpp"

namespace troupe::engine {

using schemas::logit_changes;
using schemas::logit_params;

// The logit of a token that must not be drawn: below all that a model gives, and still a number
// after the division by the smallest temperature.
inline constexpr float forbidden_logit = -1e30F;
// A token whose logit is not above this was forbidden.
inline constexpr float allowed_above = -1e29F;

// Shape: logits of the tokens [first_token_id, first_token_id + logits.size()). Ids elsewhere are
// other ranks' matter. Source: the order is vLLM's (bias, then penalties; a mask last is the same
// as one first); repetition: Keskar et al., "CTRL" (2019), section 4.1.
void apply(const logit_changes& changes, std::int32_t first_token_id, std::span<float> logits);

class logit_change_source {
 public:
  // `log` may have emitted tokens already. `eos_token_ids`: the model's; kept from min_tokens on.
  logit_change_source(const sequence_log& log, std::span<const std::int32_t> eos_token_ids);

  // Whether anything is changed, now or later.
  [[nodiscard]] bool active() const noexcept { return active_; }
  // The log has grown by this token.
  void accept(std::int32_t token_id);
  // For the token after the log's last. Cost: O(different tokens that penalties count).
  [[nodiscard]] logit_changes next(const sequence_log& log) const;

 private:
  void count(std::int32_t token_id, std::int32_t in_answer);

  std::shared_ptr<const logit_params> params_;
  bool active_ = false;
  bool counts_prompt_ = false;
  std::vector<std::int32_t> end_ids_;  // not before min_tokens
  std::vector<std::uint32_t> allowed_;
  std::vector<schemas::token_count> counts_;  // in the order of their first appearance
  std::unordered_map<std::int32_t, std::size_t> place_;
};

}  // namespace troupe::engine
