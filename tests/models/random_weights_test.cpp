#include "models/random_weights.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/bfloat16.hpp"

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

}  // namespace
}  // namespace troupe::models
