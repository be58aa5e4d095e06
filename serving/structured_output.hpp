// What a request says about the form of its answer: OpenAI's response_format, vLLM's
// structured_outputs, and the guided_* names that vLLM had before.
#pragma once

#include <memory>
#include <string>

#include "schemas/sequence_log.hpp"
#include "serving/request_json.hpp"

namespace troupe::serving {

struct structured_output {
  std::shared_ptr<const schemas::output_grammar> grammar;  // null: any text
  std::string param;  // that asked for it, for errors about the grammar itself
};

// Errors: 400 naming the parameter: wrong type, unknown form, more than one of them.
[[nodiscard]] api_result<structured_output> read_structured_output(const json& body);

}  // namespace troupe::serving
