#include "engine/sequence_log.hpp"

#include <algorithm>
#include <string>

namespace troupe::engine {

base::result<void> check_params(const sampling_params& params) {
  const auto refuse = [](const std::string& what) {
    return base::fail(base::error_code::invalid_argument, "engine", what);
  };
  if (!(params.temperature >= 0.0F && params.temperature <= sampling_limits::temperature_max)) {
    return refuse("temperature is " + std::to_string(params.temperature) + ", allowed: 0 to 2");
  }
  if (!(params.top_p > 0.0F && params.top_p <= 1.0F)) {
    return refuse("top_p is " + std::to_string(params.top_p) + ", allowed: above 0, up to 1");
  }
  if (params.top_k < 0) {
    return refuse("top_k is " + std::to_string(params.top_k) + ", allowed: 0 (off) or more");
  }
  if (params.max_tokens < 1) {
    return refuse("max_tokens is " + std::to_string(params.max_tokens) + ", allowed: 1 or more");
  }
  if (params.logprobs < -1 || params.logprobs > sampling_limits::logprobs_max) {
    return refuse("logprobs is " + std::to_string(params.logprobs) + ", allowed: 0 to 20");
  }
  if (params.stop_token_ids.size() > sampling_limits::stop_token_ids_max) {
    return refuse("stop_token_ids has more than 64 entries");
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
