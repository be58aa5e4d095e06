// Parameters that OpenAI or vLLM have and this server has not: a value that asks for nothing is
// taken, any other is a 400 that names the parameter, so that nobody gets an answer made without
// what was asked for.
#pragma once

#include "serving/request_json.hpp"

namespace troupe::serving {

enum class endpoint : std::uint8_t;

[[nodiscard]] api_result<void> refuse_unsupported(const json& body, endpoint at);

}  // namespace troupe::serving
