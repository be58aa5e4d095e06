#include "serving/structured_output.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace troupe::serving {
namespace {

using schemas::output_grammar;
using kind = output_grammar::kind;

structured_output made(kind of, std::string text, std::string param) {
  return {std::make_shared<output_grammar>(output_grammar{of, std::move(text)}), std::move(param)};
}

// A schema as an object, or as a string that holds one.
api_result<std::string> schema_text(const json& value, const std::string& param) {
  if (value.is_object()) return value.dump();
  if (value.is_string()) return value.get<std::string>();
  return refuse(param, "expected a JSON schema, got " + shown(value), "invalid_type");
}

api_result<structured_output> read_form(kind of, const json& value, const std::string& param) {
  switch (of) {
    case kind::json_object: {
      if (!value.is_boolean()) {
        return refuse(param, "expected a boolean, got " + shown(value), "invalid_type");
      }
      return value.get<bool>() ? made(of, "", param) : structured_output{};
    }
    case kind::json_schema: {
      TROUPE_TRY(text, schema_text(value, param));
      return made(of, std::move(text), param);
    }
    case kind::choice: {
      if (!value.is_array()) {
        return refuse(param, "expected a list of strings, got " + shown(value), "invalid_type");
      }
      return made(of, value.dump(), param);
    }
    case kind::regex:
    case kind::lark:
      break;
  }
  TROUPE_TRY(text, as_string(value, param));
  return made(of, std::move(text), param);
}

api_result<structured_output> read_json_schema(const json& format) {
  const field_reader fields(format, "response_format.");
  const json* const wrapped = fields.find("json_schema");
  if (wrapped == nullptr) {
    return refuse("response_format.json_schema", "is missing", "missing_parameter");
  }
  if (!wrapped->is_object()) {
    return refuse("response_format.json_schema", "expected an object, got " + shown(*wrapped),
                  "invalid_type");
  }
  const field_reader inner(*wrapped, "response_format.json_schema.");
  const json* const schema = inner.find("schema");
  if (schema == nullptr) {
    return refuse(inner.param("schema"), "is missing", "missing_parameter");
  }
  return read_form(kind::json_schema, *schema, inner.param("schema"));
}

api_result<structured_output> read_response_format(const json& format) {
  if (!format.is_object()) {
    return refuse("response_format", "expected an object, got " + shown(format), "invalid_type");
  }
  TROUPE_TRY(type, field_reader(format, "response_format.").string("type"));
  if (type == "text") return structured_output{};
  if (type == "json_object") return made(kind::json_object, "", "response_format");
  if (type == "json_schema") return read_json_schema(format);
  return refuse("response_format.type",
                fmt::format("expected text, json_object or json_schema, got {}",
                            shown(json(type.value_or("")))));
}

struct form_name {
  const char* name;
  kind of;
};
constexpr std::array<form_name, 5> forms = {{{"json", kind::json_schema},
                                             {"regex", kind::regex},
                                             {"choice", kind::choice},
                                             {"grammar", kind::lark},
                                             {"json_object", kind::json_object}}};
constexpr std::array<form_name, 4> older_forms = {{{"guided_json", kind::json_schema},
                                                   {"guided_regex", kind::regex},
                                                   {"guided_choice", kind::choice},
                                                   {"guided_grammar", kind::lark}}};

// Takes `next` beside what is there; only one of them may ask for something.
api_result<void> join(structured_output& all, structured_output next) {
  if (!next.grammar) return {};
  if (all.grammar) {
    return refuse(next.param, "cannot be given beside " + all.param + "; an answer has one form");
  }
  all = std::move(next);
  return {};
}

template <std::size_t Count>
api_result<void> read_forms(const json& object, const std::string& prefix,
                            const std::array<form_name, Count>& names, structured_output& all) {
  const field_reader fields(object, prefix);
  for (const form_name& form : names) {
    const json* const value = fields.find(form.name);
    if (value == nullptr) continue;
    TROUPE_TRY(read, read_form(form.of, *value, fields.param(form.name)));
    TROUPE_TRY_VOID(join(all, std::move(read)));
  }
  return {};
}

}  // namespace

api_result<structured_output> read_structured_output(const json& body) {
  structured_output all;
  const field_reader fields(body);
  if (const json* const format = fields.find("response_format")) {
    TROUPE_TRY(read, read_response_format(*format));
    TROUPE_TRY_VOID(join(all, std::move(read)));
  }
  if (const json* const outputs = fields.find("structured_outputs")) {
    if (!outputs->is_object()) {
      return refuse("structured_outputs", "expected an object, got " + shown(*outputs),
                    "invalid_type");
    }
    TROUPE_TRY_VOID(read_forms(*outputs, "structured_outputs.", forms, all));
  }
  TROUPE_TRY_VOID(read_forms(body, "", older_forms, all));
  return all;
}

}  // namespace troupe::serving
