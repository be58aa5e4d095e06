// Takes a chat answer's text apart as it comes: reasoning, content, calls of tools.
//
// Pure: the pieces depend on the text alone, not on how it was cut. What may still turn out to be a
// marker is held back. Text that is no call after all is content, as it stands.
//
//   auto parser = make_answer_parser({.tools = tool_format::hermes});
//   parser->push(text, pieces);
//   parser->finish(pieces);
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::serving {

// How a model writes calls. The names are vLLM's.
enum class tool_format : std::uint8_t {
  none,
  hermes,       // <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen
  llama3_json,  // {"name": ..., "parameters": {...}}, all of the answer: Llama 3.1 and later
  mistral,      // [TOOL_CALLS][{"name": ..., "arguments": {...}}], or [TOOL_CALLS]name{...}
};
enum class reasoning_format : std::uint8_t {
  none,
  qwen3,        // between <think> and </think>, where the answer or the prompt's end opens it
  deepseek_r1,  // from the beginning to </think>
};
[[nodiscard]] std::optional<tool_format> parse_tool_format(std::string_view name);
[[nodiscard]] std::optional<reasoning_format> parse_reasoning_format(std::string_view name);
// Special tokens that the format's texts need to have in them.
[[nodiscard]] std::vector<std::string_view> markers_of(tool_format format);

struct answer_piece {
  enum class kind : std::uint8_t { reasoning, content, call, arguments };
  kind of = kind::content;
  std::string text;      // of a call: the function's name
  std::size_t call = 0;  // its index in the answer
  friend bool operator==(const answer_piece&, const answer_piece&) = default;
};
using answer_pieces = std::vector<answer_piece>;

class answer_parser {
 public:
  answer_parser() = default;
  answer_parser(const answer_parser&) = delete;
  answer_parser& operator=(const answer_parser&) = delete;
  virtual ~answer_parser() = default;
  virtual void push(std::string_view text, answer_pieces& out) = 0;
  // Nothing follows.
  virtual void finish(answer_pieces& out) = 0;
};

struct answer_form {
  reasoning_format reasoning = reasoning_format::none;
  bool reasoning_open = false;  // the prompt ends with <think>
  tool_format tools = tool_format::none;
  // The answer is made to be a list of calls, [{"name": ..., "parameters": {...}}], or the
  // arguments of one function.
  bool list_of_calls = false;
  std::string function = {};
  std::size_t calls_max = std::numeric_limits<std::size_t>::max();  // further ones are dropped

  [[nodiscard]] bool plain() const noexcept {
    return reasoning == reasoning_format::none && tools == tool_format::none && !list_of_calls &&
           function.empty();
  }
};

// None where the whole text is content.
[[nodiscard]] std::unique_ptr<answer_parser> make_answer_parser(const answer_form& form);

}  // namespace troupe::serving
