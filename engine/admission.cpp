#include "engine/admission.hpp"

#include <algorithm>
#include <string>

#include "engine/block_pool.hpp"

namespace troupe::engine {
namespace {

tl::unexpected<base::error> refuse(std::string what) {
  return base::fail(base::error_code::invalid_argument, "engine", std::move(what));
}

base::result<void> check_length(const sequence_log& log, const admission_limits& limits) {
  if (log.size() >= limits.max_model_len) {
    return refuse("the prompt has " + std::to_string(log.size()) + " tokens; max_model_len is " +
                  std::to_string(limits.max_model_len) + " and must leave room for one more");
  }
  const std::int64_t left =
      log.params.max_tokens - static_cast<std::int64_t>(log.emitted_ids.size());
  // In this order: max_tokens may be as large as its type allows.
  const std::int64_t positions =
      log.size() + std::clamp<std::int64_t>(left, 0, limits.max_model_len - log.size());
  if (kv_blocks_for(positions) > limits.kv_blocks) {
    return base::fail(base::error_code::resource_exhausted, "engine",
                      "a sequence of " + std::to_string(positions) +
                          " positions does not fit the KV cache of " +
                          std::to_string(limits.kv_blocks) +
                          " blocks of 16; give more --kv-cache-memory or fewer max_tokens");
  }
  return {};
}

}  // namespace

base::result<void> check_admission(const sequence_log& log, const admission_limits& limits) {
  TROUPE_TRY_VOID(check_params(log.params));
  TROUPE_TRY_VOID(check_token_ids(log.params, limits.vocab_size));
  if (log.prompt_ids.empty()) return refuse("the prompt has no tokens");
  for (std::int64_t position = 0; position < log.size(); ++position) {
    const std::int32_t id = log.token(position);
    if (id < 0 || id >= limits.vocab_size) {
      return refuse("token id " + std::to_string(id) + " at position " + std::to_string(position) +
                    " is outside the vocabulary of " + std::to_string(limits.vocab_size));
    }
  }
  if (finished(log, limits.eos_token_ids, limits.max_model_len)) {
    return refuse("the sequence has ended already");
  }
  return check_length(log, limits);
}

}  // namespace troupe::engine
