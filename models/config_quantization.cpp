#include "models/config_quantization.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/float8.hpp"
#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

constexpr std::string_view taken =
    "this build takes quant_method \"fp8\" in blocks of 128 x 128 (fmt \"e4m3\", activation_scheme "
    "\"dynamic\"); for the rest use the bfloat16 original";

base::result<void> refuse_other_method(const config_fields& top, std::string_view name) {
  const nlohmann::json& value = *top.find(name);
  std::string method = "unknown";
  if (value.is_object() && value.contains("quant_method")) {
    method = described(value.at("quant_method"));
  }
  return base::fail(base::error_code::unimplemented, "models",
                    fmt::format("{}: field \"{}\": weights quantised by {} are not implemented: {}",
                                top.where(), name, method, taken));
}

// A text that may be left out but must not be another one.
base::result<void> expect_text(const config_fields& fields, std::string_view name,
                               std::string_view wanted) {
  TROUPE_TRY(text, fields.text(name));
  if (text.empty() || text == wanted) return {};
  return fields.wrong(name, taken, base::error_code::unimplemented);
}

}  // namespace

base::result<void> read_quantization(const config_fields& top, model_config& config) {
  constexpr std::string_view name = "quantization_config";
  if (top.has_value("compression_config")) return refuse_other_method(top, "compression_config");
  if (!top.has_value(name)) return {};
  const nlohmann::json& value = *top.find(name);
  if (!value.is_object() || !value.contains("quant_method") || value["quant_method"] != "fp8") {
    return refuse_other_method(top, name);
  }
  const config_fields fields(value, fmt::format("{}: {}", top.where(), name));
  TROUPE_TRY_VOID(expect_text(fields, "fmt", "e4m3"));
  TROUPE_TRY_VOID(expect_text(fields, "activation_scheme", "dynamic"));
  constexpr std::string_view size = "weight_block_size";
  const nlohmann::json blocks =
      nlohmann::json::array({kernels::float8_block, kernels::float8_block});
  if (!fields.has(size) || *fields.find(size) != blocks) {
    return fields.wrong(size, taken, base::error_code::unimplemented);
  }
  float8_quantization made;
  TROUPE_TRY(kept, fields.texts("modules_to_not_convert", config_limits::modules_max));
  made.modules_to_not_convert = std::move(kept);
  config.quantization = std::move(made);
  return {};
}

bool float8_quantization::converts(std::string_view tensor) const {
  constexpr std::string_view suffix = ".weight";
  if (!tensor.ends_with(suffix)) return false;
  const std::string_view module = tensor.substr(0, tensor.size() - suffix.size());
  if (module == "lm_head" || module.ends_with("embed_tokens")) return false;
  return std::ranges::none_of(modules_to_not_convert, [&](const std::string& kept) {
    if (kept.empty()) return false;
    return module == kept || module.starts_with(kept + ".") || module.ends_with("." + kept);
  });
}

}  // namespace troupe::models
