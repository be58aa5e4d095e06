#include "serving/tool_request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe::serving {
namespace {

using choice = tool_request::choice;

struct tool {
  std::string name;
  json parameters;  // a schema
};

json no_parameters() {
  return {{"type", "object"}, {"properties", json::object()}, {"additionalProperties", false}};
}

api_result<tool> read_tool(const json& value, const std::string& param,
                           const serving_limits& limits) {
  if (!value.is_object()) {
    return refuse(param, "expected an object, got " + shown(value), "invalid_type");
  }
  const field_reader fields(value, param + ".");
  TROUPE_TRY(type, fields.string("type"));
  if (type != "function") {
    return refuse(
        fields.param("type"),
        "only function is supported by this server, got " + shown(json(type.value_or(""))),
        "unsupported_parameter");
  }
  TROUPE_TRY(inner, fields.object("function"));
  TROUPE_TRY(name, inner.required_string("name"));
  if (name.empty() || name.size() > limits.tool_name_bytes_max) {
    return refuse(inner.param("name"), fmt::format("{} bytes long, allowed are 1 to {}",
                                                   name.size(), limits.tool_name_bytes_max));
  }
  TROUPE_TRY(description, inner.string("description"));
  static_cast<void>(description);  // for the template
  TROUPE_TRY(strict, inner.boolean("strict", false));
  static_cast<void>(strict);  // a call that is asked for always follows its schema
  const json* const parameters = inner.find("parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return refuse(inner.param("parameters"), "expected a JSON schema, got " + shown(*parameters),
                  "invalid_type");
  }
  return tool{std::move(name), parameters == nullptr ? no_parameters() : *parameters};
}

api_result<std::vector<tool>> read_list(const json& list, const serving_limits& limits) {
  if (!list.is_array()) {
    return refuse("tools", "expected a list of tools, got " + shown(list), "invalid_type");
  }
  if (list.size() > limits.tools_max) {
    return refuse("tools",
                  fmt::format("{} tools, at most {} are allowed", list.size(), limits.tools_max));
  }
  std::vector<tool> tools;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string param = fmt::format("tools[{}]", i);
    TROUPE_TRY(read, read_tool(list[i], param, limits));
    const bool twice = std::any_of(tools.begin(), tools.end(),
                                   [&](const tool& other) { return other.name == read.name; });
    if (twice) return refuse(param + ".function.name", "is the name of another tool too");
    tools.push_back(std::move(read));
  }
  return tools;
}

// "auto", "none", "required", or the function to call in `function`.
api_result<choice> read_choice(const json* value, std::string& function) {
  if (value == nullptr) return choice::automatic;
  if (value->is_string()) {
    const std::string& word = value->get_ref<const std::string&>();
    if (word == "auto") return choice::automatic;
    if (word == "none") return choice::none;
    if (word == "required") return choice::required;
  }
  if (!value->is_object()) {
    return refuse("tool_choice",
                  "expected auto, none, required or a function's name, got " + shown(*value));
  }
  TROUPE_TRY(named, field_reader(*value, "tool_choice.").object("function"));
  TROUPE_TRY(name, named.required_string("name"));
  function = std::move(name);
  return choice::named;
}

// References of a schema that becomes a part of another one.
void move_references(json& schema, const std::string& to) {
  if (schema.is_array()) {
    for (json& item : schema) move_references(item, to);
  }
  if (!schema.is_object()) return;
  for (auto& [key, value] : schema.items()) {
    const bool moves =
        key == "$ref" && value.is_string() && value.get_ref<const std::string&>().starts_with('#');
    if (moves) {
      value = to + value.get_ref<const std::string&>().substr(1);
    } else {
      move_references(value, to);
    }
  }
}

json schema_of_calls(std::vector<tool> tools, bool parallel) {
  json any = json::array();
  for (tool& each : tools) {
    move_references(each.parameters,
                    fmt::format("#/items/anyOf/{}/properties/parameters", any.size()));
    json properties = {{"name", {{"const", each.name}}}};
    properties["parameters"] = std::move(each.parameters);
    any.push_back({{"type", "object"},
                   {"properties", std::move(properties)},
                   {"required", {"name", "parameters"}},
                   {"additionalProperties", false}});
  }
  json items = json::object();
  items["anyOf"] = std::move(any);
  json schema = {{"type", "array"}, {"minItems", 1}};
  if (!parallel) schema["maxItems"] = 1;
  schema["items"] = std::move(items);
  return schema;
}

}  // namespace

api_result<tool_request> read_tools(const json& body, const serving_limits& limits) {
  const field_reader fields(body);
  tool_request out;
  TROUPE_TRY(parallel, fields.boolean("parallel_tool_calls", true));
  out.parallel = parallel;
  const json* const list = fields.find("tools");
  std::vector<tool> tools;
  if (list != nullptr) {
    TROUPE_TRY(read, read_list(*list, limits));
    tools = std::move(read);
  }
  TROUPE_TRY(mode, read_choice(fields.find("tool_choice"), out.function));
  if (tools.empty()) {
    if (mode == choice::automatic || mode == choice::none) return out;
    return refuse("tool_choice", "asks for a call, but tools is empty");
  }
  out.mode = mode;
  if (mode == choice::none) return out;
  out.tools_json = list->dump();
  if (mode == choice::required) {
    out.answer_schema = schema_of_calls(std::move(tools), parallel).dump();
  } else if (mode == choice::named) {
    const auto found = std::find_if(tools.begin(), tools.end(),
                                    [&](const tool& each) { return each.name == out.function; });
    if (found == tools.end()) {
      return refuse("tool_choice.function.name",
                    shown(json(out.function)) + " is none of the tools");
    }
    out.answer_schema = found->parameters.dump();
  }
  return out;
}

}  // namespace troupe::serving
