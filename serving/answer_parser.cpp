#include "serving/answer_parser.hpp"

#include <utility>

#include "serving/reasoning_parser.hpp"
#include "serving/tool_parsers.hpp"

namespace troupe::serving {

std::optional<tool_format> parse_tool_format(std::string_view name) {
  if (name == "none") return tool_format::none;
  if (name == "hermes") return tool_format::hermes;
  if (name == "llama3_json") return tool_format::llama3_json;
  if (name == "mistral") return tool_format::mistral;
  return std::nullopt;
}

std::optional<reasoning_format> parse_reasoning_format(std::string_view name) {
  if (name == "none") return reasoning_format::none;
  if (name == "qwen3") return reasoning_format::qwen3;
  if (name == "deepseek_r1") return reasoning_format::deepseek_r1;
  return std::nullopt;
}

std::vector<std::string_view> markers_of(tool_format format) {
  switch (format) {
    case tool_format::none:
      return {};
    case tool_format::hermes:
      return {"<tool_call>", "</tool_call>"};
    case tool_format::llama3_json:
      return {"<|python_tag|>"};
    case tool_format::mistral:
      return {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"};
  }
  return {};
}

std::unique_ptr<answer_parser> make_answer_parser(const answer_form& form) {
  if (form.plain()) return nullptr;
  auto tools = make_tool_parser(form);
  if (form.reasoning == reasoning_format::none) return tools;
  return make_reasoning_parser(form, std::move(tools));
}

}  // namespace troupe::serving
