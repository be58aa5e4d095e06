// A small valid config.json to change one field of, and what came of it.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "models/config.hpp"

namespace troupe::models {

inline constexpr std::array<const char*, 4> architecture_names = {
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"};

inline nlohmann::json small(const char* architecture = "LlamaForCausalLM") {
  return {{"architectures", {architecture}},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 100},
          {"max_position_embeddings", 256}};
}

inline nlohmann::json with(nlohmann::json config, const char* field, nlohmann::json value) {
  config[field] = std::move(value);
  return config;
}

inline nlohmann::json small_with(const char* field, nlohmann::json value) {
  return with(small(), field, std::move(value));
}

inline model_config parsed(const nlohmann::json& config, const std::string& generation = "") {
  const auto result = parse_config(config.dump(), generation);
  EXPECT_TRUE(result) << (result ? "" : result.error().message);
  return result ? *result : model_config{};
}

// The message of the refusal; "accepted" when there was none.
inline std::string refusal(const nlohmann::json& config,
                           base::error_code code = base::error_code::invalid_argument,
                           const std::string& generation = "") {
  const auto result = parse_config(config.dump(), generation);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
  return result.error().message;
}

}  // namespace troupe::models
