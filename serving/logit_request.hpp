// The parameters of a request that change the model's logits: penalties, logit_bias, bad_words,
// allowed_token_ids, min_tokens. Names and ranges are OpenAI's, or vLLM's where OpenAI has none.
#pragma once

#include <memory>

#include "models/text/tokenizer.hpp"
#include "schemas/sequence_log.hpp"
#include "serving/openai_server.hpp"
#include "serving/request_json.hpp"

namespace troupe::serving {

// nullptr where the request changes nothing. `tokenizer` may be null: bad_words is refused then.
// Errors: 400 naming the parameter.
[[nodiscard]] api_result<std::shared_ptr<const schemas::logit_params>> read_logit_params(
    const json& body, const served_model& model, const serving_limits& limits,
    const text::tokenizer* tokenizer);

}  // namespace troupe::serving
