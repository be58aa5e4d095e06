// What a chat says about tools: OpenAI's tools, tool_choice, parallel_tool_calls.
#pragma once

#include <cstdint>
#include <string>

#include "serving/openai_server.hpp"
#include "serving/request_json.hpp"

namespace troupe::serving {

struct tool_request {
  enum class choice : std::uint8_t { none, automatic, required, named };
  choice mode = choice::none;
  std::string tools_json = {};  // for the chat template; empty: it is told of none
  std::string function = {};    // named: the one that is called
  // required, named: the schema of the whole answer, a list of calls or the arguments.
  std::string answer_schema = {};
  bool parallel = true;

  [[nodiscard]] bool forced() const noexcept {
    return mode == choice::required || mode == choice::named;
  }
};

// With tool_choice none the model is not told of the tools.
// Errors: 400 naming the place ("tools[0].function.name").
[[nodiscard]] api_result<tool_request> read_tools(const json& body, const serving_limits& limits);

}  // namespace troupe::serving
