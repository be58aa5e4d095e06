// Whatever bytes stand in config.json: a refusal in one line, or a config within every bound.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "models/config.hpp"
#include "models/rope.hpp"
#include "tests/models/mutation.hpp"

namespace troupe::models {
namespace {

constexpr std::uint64_t seed = 3;
constexpr int rounds = 20'000;

const std::array<std::string, 5> seeds = {
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","attention_bias":false,
"bos_token_id":1,"eos_token_id":[2,3],"head_dim":16,"hidden_act":"silu","hidden_size":64,
"intermediate_size":96,"max_position_embeddings":4096,"mlp_bias":true,"num_attention_heads":4,
"num_hidden_layers":2,"num_key_value_heads":2,"rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,
"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":1024,
"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16",
"vocab_size":100})",
    R"({"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"dtype":"float32","head_dim":8,
"hidden_size":32,"intermediate_size":96,"layer_types":["full_attention","sliding_attention"],
"max_position_embeddings":256,"max_window_layers":1,"num_attention_heads":6,"num_hidden_layers":2,
"num_key_value_heads":3,"rope_parameters":{"rope_type":"yarn","rope_theta":1000000,"factor":4.0,
"original_max_position_embeddings":64,"attention_factor":1.2,"beta_fast":32,"beta_slow":1,
"mscale":1.0,"mscale_all_dim":0.5,"truncate":false},"sliding_window":16,"use_sliding_window":true,
"vocab_size":100})",
    R"({"architectures":["Qwen2ForCausalLM"],"hidden_size":64,"num_attention_heads":4,
"num_key_value_heads":4,"num_hidden_layers":3,"max_position_embeddings":128,
"rope_parameters":{"rope_type":"dynamic","factor":2.5},"vocab_size":77})",
    R"({"model_type":"mistral","hidden_size":64,"num_attention_heads":8,"num_key_value_heads":8,
"sliding_window":null,"rope_theta":1e6,"rope_scaling":{"type":"linear","factor":2}})",
    R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":64,"num_attention_heads":4,
"num_key_value_heads":4,"num_hidden_layers":1,"quantization_config":{"quant_method":"fp8",
"fmt":"e4m3","activation_scheme":"dynamic","weight_block_size":[128,128],
"modules_to_not_convert":["lm_head","model.layers.0.mlp.up_proj"]},"vocab_size":77})"};
const std::string generation = R"({"bos_token_id":1,"eos_token_id":[2,4],"temperature":0.7})";

void expect_bounded(const model_config& c, const std::string& text) {
  using limits = config_limits;
  const auto within = [](std::int64_t value, std::int64_t max) {
    return value >= 1 && value <= max;
  };
  EXPECT_TRUE(within(c.hidden_size, limits::hidden_size_max)) << text;
  EXPECT_TRUE(within(c.num_hidden_layers, limits::num_hidden_layers_max)) << text;
  EXPECT_TRUE(within(c.num_attention_heads, limits::num_attention_heads_max)) << text;
  EXPECT_TRUE(within(c.num_key_value_heads, c.num_attention_heads)) << text;
  EXPECT_EQ(c.num_attention_heads % c.num_key_value_heads, 0) << text;
  EXPECT_TRUE(within(c.head_dim, limits::head_dim_max) && c.head_dim % 2 == 0) << text;
  EXPECT_TRUE(within(c.intermediate_size, limits::intermediate_size_max)) << text;
  EXPECT_TRUE(within(c.vocab_size, limits::vocab_size_max)) << text;
  EXPECT_TRUE(within(c.max_position_embeddings, limits::max_position_embeddings_max)) << text;
  EXPECT_TRUE(within(c.rope.original_max_position_embeddings, limits::max_position_embeddings_max))
      << text;
  EXPECT_TRUE(c.rms_norm_eps > 0 && c.rms_norm_eps <= 1) << text;
  EXPECT_EQ(c.sliding_window.size(), static_cast<std::size_t>(c.num_hidden_layers)) << text;
  for (const auto& window : c.sliding_window) EXPECT_TRUE(!window || *window >= 1) << text;
  if (c.quantization) {
    EXPECT_LE(c.quantization->modules_to_not_convert.size(), limits::modules_max) << text;
  }
  for (const std::int32_t id : c.eos_token_ids) EXPECT_TRUE(id >= 0 && id < c.vocab_size) << text;
}

void expect_finite_rotation(const model_config& config, const std::string& text) {
  const auto made = rope::make(config);
  if (!made) {
    EXPECT_EQ(made.error().code, base::error_code::invalid_argument) << text;
    return;
  }
  const std::vector<std::int64_t> positions = {0, 1, 1000, rope::position_max};
  std::vector<std::int64_t> lengths;
  for (const std::int64_t p : positions) lengths.push_back(rope::length_of(p, 500));
  std::vector<float> cos(positions.size() * made->inv_freq().size());
  std::vector<float> sin(cos.size());
  made->fill(positions, lengths, cos, sin);
  const float bound = made->attention_scaling() * 1.000001F;
  for (const float value : cos) EXPECT_LE(std::abs(value), bound) << text;
  for (const float value : sin) EXPECT_LE(std::abs(value), bound) << text;
}

void expect_one_clear_line(const base::error& error, const std::string& text) {
  EXPECT_TRUE(error.code == base::error_code::invalid_argument ||
              error.code == base::error_code::unimplemented)
      << text;
  EXPECT_NE(error.message.find("config.json: "), std::string::npos) << error.message;
  EXPECT_LT(error.message.size(), 600U) << error.message;
  for (const char c : error.message) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << error.message;
}

TEST(ConfigMutation, IsRefusedInOneLineOrBounded) {
  mutator change(seed);
  int accepted = 0;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("seed " + std::to_string(seed) + " round " + std::to_string(round));
    const std::string text = change.mutated(seeds[change.below(seeds.size())]);
    const std::string other = round % 4 == 0 ? change.mutated(generation) : generation;
    const auto result = parse_config(text, other);
    if (!result) {
      expect_one_clear_line(result.error(), text);
      EXPECT_EQ(result.error().message, parse_config(text, other).error().message);
      continue;
    }
    ++accepted;
    expect_bounded(*result, text);
    expect_finite_rotation(*result, text);
  }
  // Both ways out must have been taken often, or the mutations test nothing.
  EXPECT_GT(accepted, rounds / 20);
  EXPECT_LT(accepted, rounds * 19 / 20);
}

}  // namespace
}  // namespace troupe::models
