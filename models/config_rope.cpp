#include "models/config_rope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

using limits = config_limits;

constexpr std::array<std::pair<std::string_view, rope_type>, 5> rope_types = {{
    {"default", rope_type::standard},
    {"linear", rope_type::linear},
    {"dynamic", rope_type::dynamic},
    {"llama3", rope_type::llama3},
    {"yarn", rope_type::yarn},
}};
constexpr std::array<std::string_view, 5> unbuilt_rope_types = {"longrope", "su", "mrope",
                                                                "proportional", "axial"};
constexpr std::string_view rope_types_allowed =
    "this build has default, linear, dynamic, llama3, yarn";
constexpr double small_positive = 1e-9;

base::result<rope_type> read_type(const config_fields& fields) {
  // Old files say "type"; where both are there, transformers takes "rope_type".
  const std::string_view name = fields.has("rope_type") ? "rope_type" : "type";
  if (!fields.has(name)) return rope_type::standard;
  TROUPE_TRY(text, fields.text(name));
  for (const auto& [known, type] : rope_types) {
    if (text == known) return type;
  }
  const bool unbuilt = std::ranges::find(unbuilt_rope_types, text) != unbuilt_rope_types.end();
  return fields.wrong(
      name, rope_types_allowed,
      unbuilt ? base::error_code::unimplemented : base::error_code::invalid_argument);
}

base::result<void> refuse_partial_rotary(const config_fields& fields) {
  const nlohmann::json* value = fields.find("partial_rotary_factor");
  if (value == nullptr || value->is_null() || (value->is_number() && value->get<double>() == 1.0)) {
    return {};
  }
  return fields.wrong("partial_rotary_factor", "only 1 is implemented",
                      base::error_code::unimplemented);
}

// rope_parameters keyed by layer type is for models whose layers differ in it; here all are alike.
base::result<const nlohmann::json*> without_layer_types(const config_fields& top,
                                                        std::string_view name,
                                                        const nlohmann::json& object) {
  const nlohmann::json* first = nullptr;
  for (const auto& [key, value] : object.items()) {
    if (key != "full_attention" && key != "sliding_attention") continue;
    if (!value.is_object()) {
      return top.wrong(
          name, fmt::format("the entry \"{}\" is {}, give an object", key, described(value)));
    }
    if (first != nullptr && *first != value) {
      return top.wrong(name,
                       "full_attention and sliding_attention layers with different rotary "
                       "parameters are not implemented",
                       base::error_code::unimplemented);
    }
    first = &value;
  }
  return first != nullptr ? first : &object;
}

// The object that holds the parameters, or nullptr. Transformers lets a non-empty rope_scaling win.
base::result<const nlohmann::json*> find_object(const config_fields& top, std::string& name) {
  for (const std::string_view candidate : {"rope_scaling", "rope_parameters"}) {
    if (!top.has_value(candidate)) continue;
    const nlohmann::json& object = *top.find(candidate);
    if (!object.is_object()) return top.wrong(candidate, "give an object or null");
    if (object.empty()) continue;
    name = candidate;
    return without_layer_types(top, candidate, object);
  }
  return nullptr;
}

base::result<void> read_llama3(const config_fields& fields, rope_parameters& rope) {
  TROUPE_TRY(low, fields.number({.name = "low_freq_factor", .min = small_positive, .max = 1e6}));
  TROUPE_TRY(high, fields.number({.name = "high_freq_factor", .min = small_positive, .max = 1e6}));
  if (high <= low) {
    return fields.wrong("high_freq_factor",
                        fmt::format("give a number greater than low_freq_factor ({})", low));
  }
  rope.low_freq_factor = low;
  rope.high_freq_factor = high;
  return {};
}

base::result<void> read_yarn(const config_fields& fields, rope_parameters& rope) {
  const number_field any{.min = -1e6, .max = 1e6};
  const auto optional = [&](std::string_view name, number_field bounds) {
    bounds.name = name;
    return fields.optional_number(bounds);
  };
  TROUPE_TRY(attention_factor, optional("attention_factor", {.min = small_positive, .max = 1e6}));
  TROUPE_TRY(mscale, optional("mscale", any));
  TROUPE_TRY(mscale_all_dim, optional("mscale_all_dim", any));
  TROUPE_TRY(beta_fast, optional("beta_fast", {.min = 0.0, .max = 1e6}));
  TROUPE_TRY(beta_slow, optional("beta_slow", {.min = 0.0, .max = 1e6}));
  rope.attention_factor = attention_factor;
  rope.mscale = mscale;
  rope.mscale_all_dim = mscale_all_dim;
  // Transformers reads 0 and null as "not given".
  rope.beta_fast = beta_fast.value_or(0.0) == 0.0 ? 32.0 : *beta_fast;
  rope.beta_slow = beta_slow.value_or(0.0) == 0.0 ? 1.0 : *beta_slow;
  const nlohmann::json* truncate = fields.find("truncate");
  if (truncate != nullptr && truncate->is_null()) {
    rope.truncate = false;  // as Python's `if None`
  } else {
    TROUPE_TRY(value, fields.boolean("truncate", true));
    rope.truncate = value;
  }
  if (rope.rope_theta <= 1.0) {
    return fields.wrong("rope_theta", "yarn takes its logarithm: give a number above 1");
  }
  return {};
}

base::result<void> read_original_length(const config_fields& top, const config_fields& fields,
                                        model_config& config) {
  rope_parameters& rope = config.rope;
  rope.original_max_position_embeddings = config.max_position_embeddings;
  // Dynamic scaling starts from max_position_embeddings whatever else is said.
  if (rope.type != rope_type::llama3 && rope.type != rope_type::yarn) return {};
  constexpr std::string_view name = "original_max_position_embeddings";
  const bool outside = top.has_value(name);
  if (!outside && !fields.has_value(name)) return {};
  TROUPE_TRY(
      length,
      (outside ? top : fields).integer({.name = name, .max = limits::max_position_embeddings_max}));
  rope.original_max_position_embeddings = length;
  return {};
}

base::result<void> read_factor(const config_fields& fields, model_config& config) {
  rope_parameters& rope = config.rope;
  const nlohmann::json* value = fields.find("factor");
  if (rope.type == rope_type::yarn && value != nullptr && value->is_null()) {
    rope.factor = static_cast<double>(config.max_position_embeddings) /
                  static_cast<double>(rope.original_max_position_embeddings);
    if (rope.factor >= 1.0 && rope.factor <= limits::rope_factor_max) return {};
    return fields.wrong("factor",
                        fmt::format("then max_position_embeddings / "
                                    "original_max_position_embeddings stands for it, which is {} "
                                    "and must be from 1 to {}",
                                    rope.factor, limits::rope_factor_max));
  }
  TROUPE_TRY(factor, fields.number({.name = "factor", .min = 1.0, .max = limits::rope_factor_max}));
  rope.factor = factor;
  return {};
}

}  // namespace

base::result<void> read_rope(const config_fields& top, model_config& config) {
  rope_parameters& rope = config.rope;
  TROUPE_TRY_VOID(refuse_partial_rotary(top));
  std::string name;
  TROUPE_TRY(object, find_object(top, name));
  static const nlohmann::json nothing = nlohmann::json::object();
  const config_fields fields(object == nullptr ? nothing : *object,
                             object == nullptr ? top.where() : top.where() + ": " + name);
  TROUPE_TRY_VOID(refuse_partial_rotary(fields));
  const config_fields& theta_owner = fields.has("rope_theta") ? fields : top;
  TROUPE_TRY(
      theta,
      theta_owner.number(
          {.name = "rope_theta", .absent = 10000.0, .min = 1.0, .max = limits::rope_theta_max}));
  rope.rope_theta = theta;
  TROUPE_TRY(type, read_type(fields));
  rope.type = type;
  TROUPE_TRY_VOID(read_original_length(top, fields, config));
  if (type == rope_type::standard) return {};
  TROUPE_TRY_VOID(read_factor(fields, config));
  if (type == rope_type::llama3) return read_llama3(fields, rope);
  if (type == rope_type::yarn) return read_yarn(fields, rope);
  if (type == rope_type::dynamic && config.head_dim <= 2) {
    return fields.wrong(fields.has("rope_type") ? "rope_type" : "type",
                        "dynamic scaling needs a head_dim of at least 4");
  }
  return {};
}

}  // namespace troupe::models
