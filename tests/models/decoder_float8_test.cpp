// Whole models in float8_e4m3 on a device: what stays as codes does so at every size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "models/random_weights.hpp"
#include "models/registry.hpp"
#include "tests/kernels/host_device.hpp"

namespace troupe::models {
namespace {

// Canonical runs of one head of 128 and of intermediate_size / 8.
model_config float8_config(std::int64_t intermediate_size) {
  model_config config;
  config.architecture = "Qwen3ForCausalLM";
  config.vocab_size = 1024;
  config.hidden_size = 256;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.intermediate_size = intermediate_size;
  config.max_position_embeddings = 128;
  config.sliding_window = {std::nullopt, std::nullopt};
  config.quantization = float8_quantization{};
  return config;
}

struct loaded_share {
  std::uint64_t bytes = 0;
  std::string why_dequantised;
};

loaded_share load_share(const checkpoint& files, const model_config& config, placement where,
                        kernels::device* on) {
  kernels::thread_pool pool({.threads = 2});
  weight_reader reader({.files = &files,
                        .type = kernels::dtype::bfloat16,
                        .pool = &pool,
                        .on = on,
                        .plan_only = on == nullptr,
                        .plan_for_device = true,
                        .progress = {}});
  const auto made = load({reader, config, where});
  EXPECT_TRUE(made.has_value()) << made.error().message;
  return {reader.bytes(), reader.why_dequantised()};
}

TEST(DecoderFloat8, ADeviceKeepsTheLayersMatricesAtEverySize) {
  const model_config config = float8_config(2048);
  const checkpoint files = random_weights(config).value();
  kernels::host_device device;
  // q, k, v, o of 1024 x 256 and gate, up, down of 2048 x 256; a scale for 16 x 128.
  const std::uint64_t codes = 2 * (4 * 1024 + 3 * 2048) * 256;
  const std::uint64_t matrices = codes + codes / (16 * 128) * 4 + 2 * 1024 * 256 * 2;
  // Norms are float32 and on every rank.
  const std::uint64_t norms = (2 * (256 + 256 + 128 + 128) + 256) * 4;
  for (const int tp_size : {1, 2, 4, 8}) {
    std::uint64_t bytes = 0;
    for (int rank = 0; rank < tp_size; ++rank) {
      const placement where{.tp_rank = rank, .tp_size = tp_size};
      const loaded_share share = load_share(files, config, where, &device);
      EXPECT_EQ(share.why_dequantised, "");
      EXPECT_EQ(load_share(files, config, where, nullptr).bytes, share.bytes);
      bytes += share.bytes;
    }
    EXPECT_EQ(bytes, matrices + static_cast<std::uint64_t>(tp_size) * norms) << "tp " << tp_size;
  }
}

TEST(DecoderFloat8, RunsThatAreCutElsewhereAreDequantisedAtEverySize) {
  const model_config config = float8_config(1792);  // runs of 7 units of 32: 224 inputs
  const checkpoint files = random_weights(config).value();
  kernels::host_device device;
  for (const int tp_size : {1, 2, 8}) {
    for (int rank = 0; rank < tp_size; ++rank) {
      const placement where{.tp_rank = rank, .tp_size = tp_size};
      EXPECT_EQ(load_share(files, config, where, &device).why_dequantised,
                "2 matrices stored as float8_e4m3 are bfloat16 on the device: parts of them are "
                "stored otherwise, or they are cut elsewhere than at multiples of 128 inputs and "
                "16 outputs: model.layers.0.mlp.down_proj.weight, ...")
          << "rank " << rank << " of " << tp_size;
    }
  }
}

TEST(DecoderFloat8, WithoutQuantizationConfigIsRefused) {
  model_config config = float8_config(2048);
  const checkpoint files = random_weights(config).value();
  config.quantization.reset();
  weight_reader reader({.files = &files, .pool = nullptr, .plan_only = true, .progress = {}});
  const auto refused = load({reader, config, placement{}});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::invalid_argument);
  EXPECT_THAT(
      refused.error().message,
      testing::StartsWith("tensor model.layers.0.self_attn.q_proj.weight is float8_e4m3 but "
                          "config.json has no quantization_config"));
}

}  // namespace
}  // namespace troupe::models
