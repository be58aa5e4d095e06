// From the body of a request to token ids: JSON, checks, chat template, tokenizer. Pure functions
// of the body (and, for templates that write the date, the time): run on a text thread, as a long
// prompt takes up to seconds. A grammar that is new takes up to one: on a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/openai_server.hpp"
#include "serving/sampling_request.hpp"
#include "serving/structured_output.hpp"
#include "serving/tool_request.hpp"

namespace troupe::serving {

// A request for tokens, ready for the gang.
struct prepared_request {
  endpoint at = endpoint::chat;
  sampling_request sampling;
  std::vector<std::vector<std::int32_t>> prompts;  // one, or several of /v1/completions
  std::vector<std::int64_t> max_tokens;            // of each prompt
  std::vector<std::string> echoes;                 // texts of the prompts, where they are wanted
  std::string tenant;                              // whose key it came with
  answer_form form = {};                           // what the answers' texts are made of
  std::vector<std::int32_t> markers = {};          // special tokens whose text it needs
  bool calls_end_answers = true;                   // finish_reason tool_calls: not where named
  std::string grammar_param = {};                  // whose grammar is still to be compiled
};

[[nodiscard]] api_error no_such_model(const std::string& name, const served_model& model);

class text_front {
 public:
  text_front(const text::tokenizer* tokenizer, const text::chat_template* chat,
             text::grammar_cache* grammars, served_model model, const serving_limits& limits,
             std::function<std::chrono::seconds()> wall_clock)
      : tokenizer_(tokenizer),
        chat_(chat),
        grammars_(grammars),
        model_(std::move(model)),
        limits_(limits),
        wall_clock_(std::move(wall_clock)) {}

  // Errors of all: 400 naming the parameter, 404 (no such model).
  [[nodiscard]] api_result<prepared_request> prepare(endpoint at, std::string_view body) const;
  // Where prepare() left a grammar_param: compiles the grammar, which is kept for the engine.
  [[nodiscard]] api_result<prepared_request> compile_grammar(prepared_request request) const;
  // Bodies of the answers to /tokenize and /detokenize, in vLLM's shapes.
  [[nodiscard]] api_result<std::string> tokenize(std::string_view body) const;
  [[nodiscard]] api_result<std::string> detokenize(std::string_view body) const;

  [[nodiscard]] const served_model& model() const noexcept { return model_; }

 private:
  using token_ids = std::vector<std::int32_t>;
  [[nodiscard]] api_result<json> read_body(std::string_view body) const;
  // The prompt's text, too. Errors: those of the template, tools that it does not write.
  [[nodiscard]] api_result<std::string> read_chat_text(const json& body,
                                                       const tool_request& tools) const;
  [[nodiscard]] api_result<void> read_chat_prompt(const json& body, prepared_request& out) const;
  void keep_markers(const std::vector<std::string_view>& texts, prepared_request& out) const;
  [[nodiscard]] api_result<void> force_calls(const tool_request& tools,
                                             prepared_request& out) const;
  [[nodiscard]] api_result<token_ids> encode(std::string_view text, const std::string& param,
                                             bool add_special_tokens) const;
  [[nodiscard]] api_result<token_ids> read_ids(const json& list, const std::string& param) const;
  [[nodiscard]] api_result<token_ids> read_prompt(const json& value, const std::string& param,
                                                  bool add_special_tokens) const;
  [[nodiscard]] api_result<std::vector<token_ids>> read_prompts(const json& body) const;
  [[nodiscard]] api_result<void> take_grammar(structured_output asked, prepared_request& out) const;
  [[nodiscard]] api_result<std::vector<std::string>> texts_of_prompts(
      const json& body, const std::vector<token_ids>& prompts, bool skip_special_tokens) const;
  [[nodiscard]] api_result<void> fit_length(prepared_request& request) const;

  const text::tokenizer* tokenizer_;
  const text::chat_template* chat_;
  text::grammar_cache* grammars_;
  served_model model_;
  serving_limits limits_;
  std::function<std::chrono::seconds()> wall_clock_;
  mutable std::atomic<bool> writes_tools_{false};  // the template was seen to: not looked at again
};

}  // namespace troupe::serving
