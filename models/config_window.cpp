#include "models/config_window.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

using limits = config_limits;

// Mistral and Qwen files that leave the field out. Source: transformers, their configuration files.
constexpr std::int64_t sliding_window_default = 4096;

// Which layers slide when the file has no layer_types.
base::result<std::vector<bool>> default_sliding(const config_fields& top, bool qwen,
                                                std::int64_t layers) {
  std::vector<bool> sliding(static_cast<std::size_t>(layers), true);
  if (!qwen) return sliding;
  TROUPE_TRY(first, top.integer({.name = "max_window_layers",
                                 .absent = 28,
                                 .min = 0,
                                 .max = limits::max_position_embeddings_max}));
  for (std::size_t i = 0; i < sliding.size(); ++i) {
    sliding[i] = static_cast<std::int64_t>(i) >= first;
  }
  return sliding;
}

base::result<std::vector<bool>> listed_sliding(const config_fields& top, std::int64_t layers) {
  TROUPE_TRY(types, top.texts("layer_types", static_cast<std::size_t>(layers)));
  if (static_cast<std::int64_t>(types.size()) != layers) {
    return top.wrong("layer_types", fmt::format("give one entry a layer ({})", layers));
  }
  std::vector<bool> sliding;
  for (const std::string& type : types) {
    const bool full = type == "full_attention" || type == "attention";  // the latter: older files
    if (!full && type != "sliding_attention") {
      return top.wrong("layer_types",
                       fmt::format("{} is not implemented: this build has full_attention and "
                                   "sliding_attention",
                                   in_quotes(type)),
                       base::error_code::unimplemented);
    }
    sliding.push_back(!full);
  }
  return sliding;
}

}  // namespace

base::result<void> read_sliding_window(const config_fields& top, model_config& config) {
  const std::int64_t layers = config.num_hidden_layers;
  const bool qwen = config.model_type == "qwen2" || config.model_type == "qwen3";
  std::optional<std::int64_t> window;
  if (qwen || config.model_type == "mistral") {
    TROUPE_TRY(in_use, top.boolean("use_sliding_window", !qwen));
    TROUPE_TRY(size, top.integer({.name = "sliding_window",
                                  .absent = sliding_window_default,
                                  .null = 0,
                                  .max = limits::max_position_embeddings_max}));
    if (size > 0 && (in_use || !qwen)) window = size;
  }
  TROUPE_TRY(sliding, default_sliding(top, qwen, layers));
  if (top.has_value("layer_types")) {
    TROUPE_TRY(listed, listed_sliding(top, layers));
    const bool any = std::ranges::find(listed, true) != listed.end();
    if (any && !window) {
      return top.wrong("layer_types",
                       fmt::format("sliding_attention is named, but {}",
                                   qwen ? "use_sliding_window is false or sliding_window is null"
                                        : "there is no sliding_window to use"));
    }
    // Transformers ignores the list here: a file that says otherwise wants another architecture.
    if (!qwen && window && listed != sliding) {
      return top.wrong("layer_types",
                       fmt::format("{} slides in every layer or in none", config.architecture),
                       base::error_code::unimplemented);
    }
    sliding = listed;
  }
  for (const bool slides : sliding) {
    config.sliding_window.push_back(slides ? window : std::nullopt);
  }
  return {};
}

}  // namespace troupe::models
