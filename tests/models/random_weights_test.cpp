#include "models/random_weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/bfloat16.hpp"
#include "kernels/float8.hpp"
#include "models/weight_reader.hpp"

namespace troupe::models {
namespace {

model_config small_config() {
  model_config config;
  config.architecture = "Qwen3ForCausalLM";
  config.vocab_size = 200;
  config.hidden_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.intermediate_size = 96;
  config.max_position_embeddings = 128;
  config.sliding_window = {std::nullopt, std::nullopt};
  return config;
}

std::vector<std::uint16_t> words(const checkpoint& from, const tensor_info& tensor,
                                 std::uint64_t first, std::size_t count) {
  std::vector<std::uint16_t> bits(count);
  EXPECT_TRUE(from.read(tensor, first * 2, std::as_writable_bytes(std::span(bits))).has_value());
  return bits;
}

TEST(RandomWeights, HaveEveryTensorTheArchitectureAsksFor) {
  const auto made = random_weights(small_config());
  ASSERT_TRUE(made.has_value());
  for (const char* name :
       {"model.embed_tokens.weight", "model.norm.weight", "model.layers.1.self_attn.q_norm.weight",
        "model.layers.0.mlp.down_proj.weight", "lm_head.weight"}) {
    EXPECT_TRUE(made->contains(name)) << name;
  }
  const auto found = made->find("model.layers.0.mlp.down_proj.weight");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ((*found)->shape, (std::vector<std::int64_t>{64, 96}));
  EXPECT_EQ((*found)->bytes, 64U * 96 * 2);
  EXPECT_TRUE(made->identities()->empty());
  for (const tensor_info& tensor : made->tensors()) {
    EXPECT_EQ(tensor.dtype, stored_dtype::bfloat16) << tensor.name;
  }
}

TEST(RandomWeights, AreTheSameHoweverTheyAreRead) {
  const auto made = random_weights(small_config());
  ASSERT_TRUE(made.has_value());
  const tensor_info& tensor = **made->find("model.embed_tokens.weight");
  const std::vector<std::uint16_t> all = words(*made, tensor, 0, 200 * 64);
  for (const std::uint64_t first : {1, 2, 3, 63, 64, 5001}) {
    const std::vector<std::uint16_t> some = words(*made, tensor, first, 130);
    EXPECT_EQ(std::memcmp(some.data(), all.data() + first, some.size() * 2), 0) << first;
  }
  double sum = 0;
  double squares = 0;
  for (const std::uint16_t bits : all) {
    const double value = kernels::from_bfloat16(bits);
    sum += value;
    squares += value * value;
  }
  const auto count = static_cast<double>(all.size());
  EXPECT_NEAR(sum / count, 0.0, 0.001);
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.001);
  const tensor_info& other = **made->find("lm_head.weight");
  EXPECT_NE(words(*made, other, 0, 200 * 64), all);
}

TEST(RandomWeights, NormsAreOnes) {
  const auto made = random_weights(small_config());
  ASSERT_TRUE(made.has_value());
  for (const std::uint16_t bits : words(*made, **made->find("model.norm.weight"), 0, 64)) {
    EXPECT_EQ(kernels::from_bfloat16(bits), 1.0F);
  }
}

TEST(RandomWeights, EndWhereTheTensorEnds) {
  const auto made = random_weights(small_config());
  ASSERT_TRUE(made.has_value());
  const tensor_info& tensor = **made->find("model.norm.weight");
  std::vector<std::byte> bytes(4);
  const auto past = made->read(tensor, tensor.bytes - 2, bytes);
  ASSERT_FALSE(past.has_value());
  EXPECT_EQ(past.error().code, base::error_code::out_of_range);
}

model_config float8_config() {
  model_config config = small_config();
  config.hidden_size = 192;
  config.quantization = float8_quantization{.modules_to_not_convert = {"o_proj"}};
  return config;
}

TEST(RandomWeights, AreFloat8WhereTheConfigSaysSo) {
  const auto made = random_weights(float8_config());
  ASSERT_TRUE(made.has_value());
  const std::string layer = "model.layers.0.";
  for (const char* const name : {"self_attn.q_proj.weight", "mlp.down_proj.weight"}) {
    const tensor_info& matrix = **made->find(layer + name);
    EXPECT_EQ(matrix.dtype, stored_dtype::float8_e4m3) << name;
    EXPECT_EQ(matrix.bytes, static_cast<std::uint64_t>(matrix.shape[0] * matrix.shape[1]));
  }
  const tensor_info& scales = **made->find(layer + "mlp.up_proj.weight_scale_inv");
  EXPECT_EQ(scales.dtype, stored_dtype::float32);
  EXPECT_EQ(scales.shape, (std::vector<std::int64_t>{1, 2}));  // of [96, 192]
  EXPECT_EQ(scales.bytes, 8U);
  for (const std::string& name :
       {layer + "self_attn.o_proj.weight", layer + "input_layernorm.weight",
        std::string("lm_head.weight"), std::string("model.embed_tokens.weight")}) {
    EXPECT_EQ((*made->find(name))->dtype, stored_dtype::bfloat16) << name;
    EXPECT_FALSE(made->contains(name + "_scale_inv")) << name;
  }
}

TEST(RandomWeights, OfFloat8HaveTheDeviationOfTheOthers) {
  const auto made = random_weights(float8_config());
  ASSERT_TRUE(made.has_value());
  const tensor_info& matrix = **made->find("model.layers.1.mlp.gate_proj.weight");
  std::vector<std::byte> codes(96 * 192);
  ASSERT_TRUE(made->read(matrix, 0, codes).has_value());
  EXPECT_FALSE(kernels::has_float8_nan(codes));
  std::vector<std::byte> some(77);
  ASSERT_TRUE(made->read(matrix, 1001, some).has_value());
  EXPECT_EQ(std::memcmp(some.data(), codes.data() + 1001, some.size()), 0);

  kernels::thread_pool pool({.threads = 1});
  weight_reader reader({.files = &*made,
                        .type = kernels::dtype::float32,
                        .pool = &pool,
                        .plan_only = false,
                        .progress = {}});
  reader.take_float8(true);
  const auto packed = reader.matrix({{matrix.name, {0, 96}, {0, 192}, 96, 192}}, {192});
  ASSERT_TRUE(packed.has_value()) << packed.error().message;
  double squares = 0;
  double sum = 0;
  std::vector<float> row(192);
  for (std::int64_t output = 0; output < 96; ++output) {
    packed->unpack_row(output, row);
    for (const float value : row) {
      sum += static_cast<double>(value);
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
  }
  // A scale differs from the middle by up to a quarter, a code from its value by up to an eighth.
  EXPECT_NEAR(std::sqrt(squares / (96 * 192)), 0.02, 0.02 * (0.25 + 0.125));
  EXPECT_NEAR(sum / (96 * 192), 0.0, 0.001);
}

}  // namespace
}  // namespace troupe::models
