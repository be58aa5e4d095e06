// What a sequence may ask for and when it ends. Its log, which is its whole state, is a plain
// struct of schemas/sequence_log.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "schemas/sequence_log.hpp"

namespace troupe::engine {

using schemas::cache_scope;
using schemas::finish_reason;
using schemas::logit_params;
using schemas::sampling_params;
using schemas::sequence_log;

struct sampling_limits {
  static constexpr float temperature_max = 2.0F;
  static constexpr std::int32_t logprobs_max = 20;  // as OpenAI's top_logprobs
  static constexpr std::size_t stop_token_ids_max = 64;
  static constexpr float penalty_max = 2.0F;  // presence and frequency, as OpenAI's
  static constexpr float repetition_penalty_max = 100.0F;
  static constexpr std::size_t logit_bias_max = 1024;
  static constexpr float bias_max = 100.0F;  // as OpenAI's
  static constexpr std::size_t bad_words_max = 1024;
  static constexpr std::size_t bad_word_tokens_max = 64;
};

// Errors: invalid_argument naming the parameter, its value and what is allowed.
[[nodiscard]] base::result<void> check_params(const sampling_params& params);

// Token ids that the parameters name, of a vocabulary of this size. Errors: as above.
[[nodiscard]] base::result<void> check_token_ids(const sampling_params& params,
                                                 std::int64_t vocab_size);

// Whether the log ends the sequence. A pure function of the log and the model's end tokens.
[[nodiscard]] std::optional<finish_reason> finished(const sequence_log& log,
                                                    const std::vector<std::int32_t>& eos_token_ids,
                                                    std::int64_t max_model_len);

}  // namespace troupe::engine
