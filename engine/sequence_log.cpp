#include "engine/sequence_log.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace troupe::engine {

namespace {

tl::unexpected<base::error> refuse(std::string what) {
  return base::fail(base::error_code::invalid_argument, "engine", std::move(what));
}

// false for NaN, too.
bool within(float value, float most) { return value >= -most && value <= most; }

base::result<void> check_logits(const logit_params& params) {
  using limits = sampling_limits;
  if (!within(params.presence_penalty, limits::penalty_max)) {
    return refuse("presence_penalty is " + std::to_string(params.presence_penalty) +
                  ", allowed: -2 to 2");
  }
  if (!within(params.frequency_penalty, limits::penalty_max)) {
    return refuse("frequency_penalty is " + std::to_string(params.frequency_penalty) +
                  ", allowed: -2 to 2");
  }
  if (!(params.repetition_penalty > 0.0F &&
        params.repetition_penalty <= limits::repetition_penalty_max)) {
    return refuse("repetition_penalty is " + std::to_string(params.repetition_penalty) +
                  ", allowed: above 0, up to 100");
  }
  if (params.logit_bias.size() > limits::logit_bias_max) {
    return refuse("logit_bias has more than 1024 entries");
  }
  for (const schemas::token_bias& bias : params.logit_bias) {
    if (!within(bias.bias, limits::bias_max)) {
      return refuse("logit_bias of token " + std::to_string(bias.token_id) +
                    " is not in -100 to 100");
    }
  }
  if (params.bad_words.size() > limits::bad_words_max) {
    return refuse("bad_words has more than 1024 entries");
  }
  for (const auto& word : params.bad_words) {
    if (word.empty() || word.size() > limits::bad_word_tokens_max) {
      return refuse("an entry of bad_words has " + std::to_string(word.size()) +
                    " tokens, allowed: 1 to 64");
    }
  }
  if (params.min_tokens < 0) {
    return refuse("min_tokens is " + std::to_string(params.min_tokens) + ", allowed: 0 or more");
  }
  return {};
}

}  // namespace

base::result<void> check_params(const sampling_params& params) {
  if (!(params.temperature >= 0.0F && params.temperature <= sampling_limits::temperature_max)) {
    return refuse("temperature is " + std::to_string(params.temperature) + ", allowed: 0 to 2");
  }
  if (!(params.top_p > 0.0F && params.top_p <= 1.0F)) {
    return refuse("top_p is " + std::to_string(params.top_p) + ", allowed: above 0, up to 1");
  }
  if (params.top_k < 0) {
    return refuse("top_k is " + std::to_string(params.top_k) + ", allowed: 0 (off) or more");
  }
  if (!(params.min_p >= 0.0F && params.min_p <= 1.0F)) {
    return refuse("min_p is " + std::to_string(params.min_p) + ", allowed: 0 to 1");
  }
  if (params.max_tokens < 1) {
    return refuse("max_tokens is " + std::to_string(params.max_tokens) + ", allowed: 1 or more");
  }
  if (params.logprobs < -1 || params.logprobs > sampling_limits::logprobs_max) {
    return refuse("logprobs is " + std::to_string(params.logprobs) + ", allowed: 0 to 20");
  }
  if (params.prompt_logprobs < -1 || params.prompt_logprobs > sampling_limits::logprobs_max) {
    return refuse("prompt_logprobs is " + std::to_string(params.prompt_logprobs) +
                  ", allowed: 0 to 20");
  }
  if (params.stop_token_ids.size() > sampling_limits::stop_token_ids_max) {
    return refuse("stop_token_ids has more than 64 entries");
  }
  if (params.logits && params.logits->min_tokens > params.max_tokens) {
    return refuse("min_tokens is " + std::to_string(params.logits->min_tokens) +
                  ", more than max_tokens, " + std::to_string(params.max_tokens));
  }
  return params.logits ? check_logits(*params.logits) : base::result<void>{};
}

base::result<void> check_token_ids(const sampling_params& params, std::int64_t vocab_size) {
  if (!params.logits) return {};
  const auto outside = [vocab_size](std::int32_t id) { return id < 0 || id >= vocab_size; };
  const auto refuse_id = [&](const char* name, std::int32_t id) {
    return refuse(std::string(name) + " names token " + std::to_string(id) +
                  ", outside the vocabulary of " + std::to_string(vocab_size));
  };
  for (const schemas::token_bias& bias : params.logits->logit_bias) {
    if (outside(bias.token_id)) return refuse_id("logit_bias", bias.token_id);
  }
  for (const std::int32_t id : params.logits->allowed_token_ids) {
    if (outside(id)) return refuse_id("allowed_token_ids", id);
  }
  for (const auto& word : params.logits->bad_words) {
    for (const std::int32_t id : word) {
      if (outside(id)) return refuse_id("bad_words", id);
    }
  }
  return {};
}

std::optional<finish_reason> finished(const sequence_log& log,
                                      const std::vector<std::int32_t>& eos_token_ids,
                                      std::int64_t max_model_len) {
  if (log.emitted_ids.empty()) return std::nullopt;
  const std::int32_t last = log.emitted_ids.back();
  const auto holds = [last](const std::vector<std::int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), last) != ids.end();
  };
  if (holds(log.params.stop_token_ids)) return finish_reason::stop;
  if (!log.params.ignore_eos && holds(eos_token_ids)) return finish_reason::stop;
  if (static_cast<std::int64_t>(log.emitted_ids.size()) >= log.params.max_tokens ||
      log.size() >= max_model_len) {
    return finish_reason::length;
  }
  return std::nullopt;
}

}  // namespace troupe::engine
