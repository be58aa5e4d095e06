#include "serving/chat_messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "serving/json_text.hpp"

namespace troupe::serving {
namespace {

constexpr std::size_t name_bytes_max = 256;

// Templates know "system"; OpenAI's newer models call the same thing "developer".
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> roles = {{
    {"system", "system"},
    {"developer", "system"},
    {"user", "user"},
    {"assistant", "assistant"},
    {"tool", "tool"},
}};

api_result<std::string_view> read_role(const field_reader& message) {
  TROUPE_TRY(role, message.string("role"));
  if (!role) return refuse(message.param("role"), "is missing", "missing_parameter");
  const auto* const found = std::find_if(roles.begin(), roles.end(),
                                         [&](const auto& known) { return known.first == *role; });
  if (found != roles.end()) return found->second;
  return refuse(message.param("role"),
                "expected system, developer, user, assistant or tool, got " + shown(*role));
}

api_result<std::string> read_part(const json& part, const std::string& param) {
  if (part.is_string()) return part.get<std::string>();  // vLLM takes bare strings too
  if (!part.is_object()) {
    return refuse(param, "expected an object, got " + shown(part), "invalid_type");
  }
  const field_reader fields(part, param + ".");
  TROUPE_TRY(type, fields.string("type"));
  if (!type) return refuse(fields.param("type"), "is missing", "missing_parameter");
  if (*type == "refusal") {
    TROUPE_TRY(refusal, fields.string("refusal"));
    return refusal.value_or("");
  }
  if (*type != "text") {
    return refuse(fields.param("type"),
                  "only text is supported by this server, got " + shown(*type),
                  "unsupported_parameter");
  }
  TROUPE_TRY(text, fields.string("text"));
  if (!text) return refuse(fields.param("text"), "is missing", "missing_parameter");
  return *std::move(text);
}

api_result<std::string> read_content(const field_reader& message, std::string_view role,
                                     const serving_limits& limits) {
  const std::string param = message.param("content");
  const json* const content = message.find("content");
  if (content == nullptr) {
    if (role == "assistant") return std::string();  // said nothing: allowed by OpenAI
    return refuse(param, "is missing", "missing_parameter");
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    return refuse(param, "expected a string or a list of parts, got " + shown(*content),
                  "invalid_type");
  }
  if (content->size() > limits.content_parts_max) {
    return refuse(param, fmt::format("{} parts, at most {} are allowed", content->size(),
                                     limits.content_parts_max));
  }
  std::string out;
  for (std::size_t i = 0; i < content->size(); ++i) {
    TROUPE_TRY(text, read_part((*content)[i], fmt::format("{}[{}]", param, i)));
    if (i != 0) out += '\n';
    out += text;
  }
  return out;
}

// Templates write the arguments themselves: what is sent as text goes to them as an object.
api_result<json> read_call(const json& call, const std::string& param) {
  if (!call.is_object()) {
    return refuse(param, "expected an object, got " + shown(call), "invalid_type");
  }
  const field_reader fields(call, param + ".");
  TROUPE_TRY(id, fields.string("id"));
  TROUPE_TRY(inner, fields.object("function"));
  TROUPE_TRY(name, inner.required_string("name"));
  const json* const sent = inner.find("arguments");
  json arguments = sent == nullptr ? json::object() : *sent;
  if (arguments.is_string()) {
    const std::string text = arguments.get<std::string>();
    arguments = text.empty() ? json::object() : json::parse(text, nullptr, false);
  }
  if (!arguments.is_object()) {
    return refuse(inner.param("arguments"), "expected a JSON object, or one as a string");
  }
  json out = {{"type", "function"}};
  if (id) out["id"] = *id;
  out["function"] = {{"name", name}};
  out["function"]["arguments"] = std::move(arguments);
  return out;
}

api_result<std::string> read_calls(const field_reader& message, const serving_limits& limits) {
  const json* const calls = message.find("tool_calls");
  if (calls == nullptr) return std::string();
  const std::string param = message.param("tool_calls");
  if (!calls->is_array()) {
    return refuse(param, "expected a list of calls, got " + shown(*calls), "invalid_type");
  }
  if (calls->size() > limits.calls_max) {
    return refuse(param,
                  fmt::format("{} calls, at most {} are allowed", calls->size(), limits.calls_max));
  }
  json out = json::array();
  for (std::size_t i = 0; i < calls->size(); ++i) {
    TROUPE_TRY(call, read_call((*calls)[i], fmt::format("{}[{}]", param, i)));
    out.push_back(std::move(call));
  }
  return out.empty() ? std::string() : out.dump();
}

// Fields of one line that go to the template as they are.
api_result<void> append_texts(std::string& out, const field_reader& message) {
  for (const char* const name : {"name", "tool_call_id"}) {
    TROUPE_TRY(text, message.string(name));
    if (!text) continue;
    if (text->size() > name_bytes_max) {
      return refuse(message.param(name), fmt::format("longer than {} bytes", name_bytes_max));
    }
    out += fmt::format(R"(,"{}":)", name);
    append_json_string(out, *text);
  }
  TROUPE_TRY(reasoning, message.string("reasoning_content"));
  if (reasoning) {
    out += R"(,"reasoning_content":)";
    append_json_string(out, *reasoning);
  }
  return {};
}

api_result<void> append_message(std::string& out, const json& message, std::size_t index,
                                const serving_limits& limits) {
  const std::string param = fmt::format("messages[{}]", index);
  if (!message.is_object()) {
    return refuse(param, "expected an object, got " + shown(message), "invalid_type");
  }
  const field_reader fields(message, param + ".");
  TROUPE_TRY(role, read_role(fields));
  TROUPE_TRY(content, read_content(fields, role, limits));
  TROUPE_TRY(calls, read_calls(fields, limits));
  if (index != 0) out += ',';
  out += R"({"role":)";
  append_json_string(out, role);
  out += R"(,"content":)";
  append_json_string(out, content);
  TROUPE_TRY_VOID(append_texts(out, fields));
  if (!calls.empty()) out += R"(,"tool_calls":)" + calls;
  out += '}';
  return {};
}

api_result<std::string> read_kwargs(const field_reader& fields) {
  json out = json::object();
  if (const json* const kwargs = fields.find("chat_template_kwargs")) {
    if (!kwargs->is_object()) {
      return refuse("chat_template_kwargs", "expected an object, got " + shown(*kwargs),
                    "invalid_type");
    }
    out = *kwargs;
  }
  TROUPE_TRY(effort, fields.string("reasoning_effort"));
  if (effort) {
    constexpr std::array<std::string_view, 6> known = {"none",   "minimal", "low",
                                                       "medium", "high",    "xhigh"};
    if (std::find(known.begin(), known.end(), *effort) == known.end()) {
      return refuse("reasoning_effort",
                    "expected none, minimal, low, medium, high or xhigh, got " + shown(*effort));
    }
    out["reasoning_effort"] = *effort;
  }
  return out.empty() ? std::string() : out.dump();
}

}  // namespace

api_result<chat_prompt> read_chat(const json& body, const serving_limits& limits) {
  const field_reader fields(body);
  const json* const messages = fields.find("messages");
  if (messages == nullptr) return refuse("messages", "is missing", "missing_parameter");
  if (!messages->is_array()) {
    return refuse("messages", "expected a list of messages, got " + shown(*messages),
                  "invalid_type");
  }
  if (messages->empty()) return refuse("messages", "expected at least one message, got none");
  if (messages->size() > limits.messages_max) {
    return refuse("messages", fmt::format("{} messages, at most {} are allowed", messages->size(),
                                          limits.messages_max));
  }
  chat_prompt out;
  out.messages_json = "[";
  for (std::size_t i = 0; i < messages->size(); ++i) {
    TROUPE_TRY_VOID(append_message(out.messages_json, (*messages)[i], i, limits));
  }
  out.messages_json += ']';
  TROUPE_TRY(add_generation_prompt, fields.boolean("add_generation_prompt", true));
  out.add_generation_prompt = add_generation_prompt;
  TROUPE_TRY(kwargs, read_kwargs(fields));
  out.kwargs_json = std::move(kwargs);
  return out;
}

api_result<std::string> render_chat(const text::chat_template& chat, const chat_prompt& prompt,
                                    text::civil_time now) {
  text::render_options options;
  options.add_generation_prompt = prompt.add_generation_prompt;
  if (!prompt.kwargs_json.empty()) options.kwargs_json = prompt.kwargs_json;
  if (!prompt.tools_json.empty()) options.tools_json = prompt.tools_json;
  options.now = now;
  auto text = chat.render(prompt.messages_json, options);
  if (!text) return refuse("messages", text.error().message);
  return *std::move(text);
}

}  // namespace troupe::serving
