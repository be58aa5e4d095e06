// The messages of a chat, checked and written as the chat template wants them.
#pragma once

#include <string>

#include "models/text/chat_template.hpp"
#include "serving/openai_server.hpp"
#include "serving/request_json.hpp"

namespace troupe::serving {

struct chat_prompt {
  std::string messages_json;  // a list of {role, content[, ...]}; text parts joined by newlines
  bool add_generation_prompt = true;
  std::string kwargs_json;  // chat_template_kwargs and reasoning_effort; empty: none
  std::string tools_json;   // a list of tools; empty: none
};

// Errors: 400 naming the place ("messages[2].content[0].type").
[[nodiscard]] api_result<chat_prompt> read_chat(const json& body, const serving_limits& limits);

// The text that the template makes of it. `now` is for templates that write the date.
// Errors: 400: what the template refuses is the request's fault, its bounds included.
[[nodiscard]] api_result<std::string> render_chat(const text::chat_template& chat,
                                                  const chat_prompt& prompt, text::civil_time now);

}  // namespace troupe::serving
