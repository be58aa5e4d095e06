// The chat template of a Hugging Face folder: messages to the prompt text, exactly as transformers'
// apply_chat_template writes it.
//
// A template is a program from the model folder: it runs in an evaluator without files, clock or
// other templates, and every step is metered. Opened once, then read-only: any number of threads
// may render. A render runs on its own short-lived thread, whose stack is known to be large enough.
//
//   TROUPE_TRY(chat, text::chat_template::open("models/qwen"));
//   TROUPE_TRY(prompt, chat.render(R"([{"role": "user", "content": "Hi"}])",
//                                  {.add_generation_prompt = true}));
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/model_folder.hpp"

struct troupe_text_template;

namespace troupe::text {

// What one render may cost. One unit of fuel is one statement, expression
// or item, or 16 bytes of text that a template builds: 30 to 80 ns.
struct chat_limits {
  // The floor of the fuel, and what each JSON value of the request adds to it: honest templates
  // spend up to 300 units a message, so a fixed 100 k would end at some hundred messages.
  std::uint64_t fuel_base = 100'000;
  std::uint64_t fuel_per_value = 1'000;
  // Whatever the request's size: below 1 s.
  std::uint64_t fuel_max = 10'000'000;
  std::size_t output_bytes_max = std::size_t{1} << 20;
  // Macros inside macros.
  std::uint32_t recursion_max = 32;
};

// Local civil time for strftime_now. Passed in: a render is a function of its inputs.
struct civil_time {
  std::int32_t year = 0;  // 1 .. 9999; 0: none given, and templates that ask for it fail
  std::int32_t month = 0;
  std::int32_t day = 0;
  std::int32_t hour = 0;
  std::int32_t minute = 0;
  std::int32_t second = 0;
};

struct render_options {
  bool add_generation_prompt = true;
  std::optional<std::string_view> tools_json{};      // a list of objects
  std::optional<std::string_view> documents_json{};  // a list of objects
  // A JSON object of extra variables; names outside kwargs_allowed are refused.
  std::optional<std::string_view> kwargs_json{};
  std::vector<std::string> kwargs_allowed = {
      "enable_thinking",       "thinking",       "thinking_budget", "reasoning_effort",
      "preserve_thinking",     "clear_thinking", "date_string",     "builtin_tools",
      "tools_in_user_message", "model_identity"};
  civil_time now{};
  chat_limits limits{};
};

// The files as bytes; chat_template wins over the one inside tokenizer_config_json.
struct chat_template_files {
  std::optional<std::string_view> chat_template{};
  std::optional<std::string_view> tokenizer_config_json{};
  std::optional<std::string_view> special_tokens_map_json{};
};

class chat_template {
 public:
  // chat_template.jinja, else chat_template of tokenizer_config.json: one text, or a list of
  // {name, template} of which "default" is used, and "tool_use" when the request has tools.
  // Errors: not_found (the model has no chat template), invalid_argument (syntax, with its line).
  [[nodiscard]] static base::result<chat_template> open(const models::model_folder& folder);
  [[nodiscard]] static base::result<chat_template> from_files(const chat_template_files& files);

  // `messages_json`: a list of objects, as in the OpenAI API. Null fields count as absent.
  // Errors: invalid_argument (malformed JSON, a template error with its line, raise_exception's
  // message), resource_exhausted (fuel, depth, output).
  [[nodiscard]] base::result<std::string> render(std::string_view messages_json,
                                                 const render_options& options) const;

 private:
  struct closer {
    void operator()(troupe_text_template* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_template, closer>;
  explicit chat_template(handle opened) : handle_(std::move(opened)) {}

  handle handle_;
};

}  // namespace troupe::text
