#include "models/rope.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "models/rope_trig.hpp"

namespace troupe::models {
namespace {

nlohmann::json golden() {
  std::ifstream file(TROUPE_SOURCE_DIR "/tests/golden/rope.json");
  return nlohmann::json::parse(file);
}

// Distance in representable float32 values, both not negative.
std::int64_t ulps(float a, float b) {
  return std::abs(std::int64_t{std::bit_cast<std::int32_t>(a)} -
                  std::int64_t{std::bit_cast<std::int32_t>(b)});
}

rope make(const nlohmann::json& config) {
  auto parsed = parse_config(config.dump(), "");
  EXPECT_TRUE(parsed) << parsed.error().message;
  auto made = rope::make(parsed.value());
  EXPECT_TRUE(made) << made.error().message;
  return std::move(made.value());
}

nlohmann::json config_with(nlohmann::json rope_parameters) {
  nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                           {"hidden_size", 64},
                           {"num_attention_heads", 4},
                           {"max_position_embeddings", 64}};
  config["rope_parameters"] = std::move(rope_parameters);
  return config;
}

struct table {
  std::vector<float> cos;
  std::vector<float> sin;
  friend bool operator==(const table&, const table&) = default;
};

table filled(const rope& rotary, std::vector<std::int64_t> positions,
             std::vector<std::int64_t> lengths) {
  const std::size_t size = positions.size() * rotary.inv_freq().size();
  table out{std::vector<float>(size), std::vector<float>(size)};
  rotary.fill(positions, lengths, out.cos, out.sin);
  return out;
}

TEST(Rope, FrequenciesEqualTransformers) {
  std::size_t exact = 0;
  std::size_t all = 0;
  const auto root = golden();  // outlives the loop over it
  for (const auto& entry : root.at("cases")) {
    const rope rotary = make(entry.at("config"));
    const auto expected = entry.at("inv_freq").get<std::vector<float>>();
    ASSERT_EQ(rotary.inv_freq().size(), expected.size()) << entry.at("name");
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // Torch's power is within 1 ulp; the steps after it are the same operations, of which the
      // blends of llama3 and yarn can carry that ulp into two more.
      EXPECT_LE(ulps(rotary.inv_freq()[i], expected[i]), 3) << entry.at("name") << " at " << i;
      exact += rotary.inv_freq()[i] == expected[i] ? 1 : 0;
      ++all;
    }
    EXPECT_EQ(rotary.attention_scaling(), entry.at("attention_scaling").get<float>())
        << entry.at("name");
  }
  EXPECT_GT(all, 400U);
  RecordProperty("equal_bits", std::to_string(exact) + " of " + std::to_string(all));
  EXPECT_GE(50 * exact, 49 * all) << exact << " of " << all << " are equal to the bit";
}

TEST(Rope, CosinesEqualTransformersThroughPromptAndDecode) {
  double worst = 0.0;
  const auto root = golden();  // outlives the loop over it
  for (const auto& entry : root.at("cases")) {
    const rope rotary = make(entry.at("config"));
    const auto prompt = entry.at("prompt").get<std::int64_t>();
    std::vector<std::int64_t> positions;
    std::vector<std::int64_t> lengths;
    std::vector<float> cos;
    std::vector<float> sin;
    for (const auto& token : entry.at("tokens")) {
      positions.push_back(token.at("position").get<std::int64_t>());
      lengths.push_back(rope::length_of(positions.back(), prompt));
      for (const float value : token.at("cos").get<std::vector<float>>()) cos.push_back(value);
      for (const float value : token.at("sin").get<std::vector<float>>()) sin.push_back(value);
    }
    ASSERT_GE(positions.size(), 6U) << entry.at("name");
    const table got = filled(rotary, positions, lengths);
    ASSERT_EQ(got.cos.size(), cos.size());
    for (std::size_t i = 0; i < cos.size(); ++i) {
      // An angle below 128 that is off by 1 ulp of its frequency (2^-24 of it) is off by 8e-6 at
      // most; frequencies are almost always equal, so 1e-6 holds but for the largest angles.
      const auto angle = static_cast<double>(positions[i / rotary.inv_freq().size()]) *
                         rotary.inv_freq()[i % rotary.inv_freq().size()];
      const double allowed = 3e-7 + angle * 0x1p-23;
      EXPECT_NEAR(got.cos[i], cos[i], allowed) << entry.at("name") << " at " << i;
      EXPECT_NEAR(got.sin[i], sin[i], allowed) << entry.at("name") << " at " << i;
      worst = std::max(
          {worst, std::abs(double{got.cos[i]} - cos[i]), std::abs(double{got.sin[i]} - sin[i])});
    }
  }
  EXPECT_EQ(root.at("cases").size(), 21U);
  EXPECT_LT(worst, 1e-5);
  RecordProperty("worst", std::to_string(worst * 1e9) + "e-9");
}

TEST(Rope, DynamicLengthFollowsThePromptThenTheToken) {
  EXPECT_EQ(rope::length_of(0, 100), 100);
  EXPECT_EQ(rope::length_of(99, 100), 100);
  EXPECT_EQ(rope::length_of(100, 100), 101);
  EXPECT_EQ(rope::length_of(0, 0), 1);
}

TEST(Rope, DynamicTokenIsTheSameAloneAndInAnyBatch) {
  const rope rotary = make(config_with({{"rope_type", "dynamic"}, {"factor", 3.0}}));
  ASSERT_TRUE(rotary.depends_on_length());
  const std::vector<std::int64_t> positions = {0, 99, 5, 100, 101, 63, 99};
  const std::vector<std::int64_t> lengths = {100, 100, 6, 101, 102, 64, 100};
  const table all = filled(rotary, positions, lengths);
  const std::size_t half = rotary.inv_freq().size();
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const table one = filled(rotary, {positions[i]}, {lengths[i]});
    for (std::size_t j = 0; j < half; ++j) {
      EXPECT_EQ(one.cos[j], all.cos[i * half + j]);
      EXPECT_EQ(one.sin[j], all.sin[i * half + j]);
    }
  }
}

TEST(Rope, DynamicUpToTheTrainedLengthIgnoresTheLength) {
  const rope rotary = make(config_with({{"rope_type", "dynamic"}, {"factor", 3.0}}));
  EXPECT_EQ(filled(rotary, {7}, {8}), filled(rotary, {7}, {64}));
  EXPECT_NE(filled(rotary, {7}, {8}), filled(rotary, {7}, {65}));
}

TEST(Rope, OtherScalingsNeedNoLengths) {
  for (const auto* type : {"default", "linear", "llama3", "yarn"}) {
    const rope rotary = make(config_with({{"rope_type", type},
                                          {"factor", 2.0},
                                          {"low_freq_factor", 1.0},
                                          {"high_freq_factor", 4.0}}));
    EXPECT_FALSE(rotary.depends_on_length()) << type;
    EXPECT_EQ(filled(rotary, {0, 100, 3}, {}), filled(rotary, {0, 100, 3}, {5, 999, 7})) << type;
  }
}

TEST(Rope, HoldsAtTheLargestPositionAndHeadDim) {
  auto config = config_with({{"rope_type", "default"}});
  config["head_dim"] = config_limits::head_dim_max;
  const rope rotary = make(config);
  const table got = filled(rotary, {rope::position_max, 0}, {});
  const double exact = std::cos(static_cast<double>(rope::position_max));  // frequency 1
  EXPECT_EQ(got.cos[0], static_cast<float>(exact));
  for (std::size_t i = 0; i < got.cos.size(); ++i) {
    EXPECT_NEAR(got.cos[i] * got.cos[i] + got.sin[i] * got.sin[i], 1.0, 3e-7) << i;
  }
  EXPECT_EQ(got.cos.back(), 1.0F);
  EXPECT_EQ(got.sin.back(), 0.0F);
}

TEST(Rope, NoTokensAreFine) {
  const rope rotary = make(config_with({{"rope_type", "dynamic"}, {"factor", 2}}));
  EXPECT_TRUE(filled(rotary, {}, {}).cos.empty());
}

TEST(Rope, RefusesFrequenciesThatAreNotNumbers) {
  model_config config;
  config.head_dim = 8;
  config.max_position_embeddings = 64;
  config.rope.rope_theta = std::nan("");
  const auto made = rope::make(config);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, base::error_code::invalid_argument);
  EXPECT_NE(made.error().message.find("rope_theta"), std::string::npos);
}

TEST(RopeTrig, RoundsTheExactCosineAndSine) {
  constexpr std::uint64_t seed = 20261121;
  std::mt19937_64 random(seed);
  std::vector<float> angles = {0.0F, 1e-30F, 0.78539816F, 1.5707964F, 3.1415927F, 6.2831855F,
                               // float32 next to multiples of pi/2: the hardest to reduce
                               12345678.0F, 16367173.0F * 8, 268435456.0F, 402653184.0F};
  for (int i = 0; i < 200'000; ++i) {
    const auto exponent = static_cast<int>(random() % 40) - 12;
    const auto mantissa = static_cast<double>(random() >> 40) * 0x1p-24 + 1.0;
    const auto angle = static_cast<float>(std::ldexp(mantissa, exponent));
    if (angle <= 402653184.0F) angles.push_back(angle);
  }
  std::vector<float> cos(angles.size());
  std::vector<float> sin(angles.size());
  cos_sin(angles, 1.0F, cos, sin);
  std::size_t different = 0;
  for (std::size_t i = 0; i < angles.size(); ++i) {
    const auto exact_cos = static_cast<float>(std::cos(static_cast<long double>(angles[i])));
    const auto exact_sin = static_cast<float>(std::sin(static_cast<long double>(angles[i])));
    const auto off = [](float a, float b) { return ulps(std::abs(a), std::abs(b)); };
    ASSERT_LE(off(cos[i], exact_cos), 1) << angles[i] << " seed " << seed;
    ASSERT_LE(off(sin[i], exact_sin), 1) << angles[i] << " seed " << seed;
    ASSERT_EQ(std::signbit(cos[i]), std::signbit(exact_cos)) << angles[i];
    ASSERT_EQ(std::signbit(sin[i]), std::signbit(exact_sin)) << angles[i];
    different += (cos[i] != exact_cos ? 1 : 0) + (sin[i] != exact_sin ? 1 : 0);
  }
  // A double within 2^-45 rounds to another float32 only in a band of 2^-20 around midpoints.
  EXPECT_LE(different, 2U) << "of " << 2 * angles.size();
}

TEST(RopeTrig, ScalesInFloat32) {
  const std::vector<float> angles = {0.0F, 1.0F};
  std::vector<float> cos(2);
  std::vector<float> sin(2);
  cos_sin(angles, 1.25F, cos, sin);
  EXPECT_EQ(cos[0], 1.25F);
  EXPECT_EQ(sin[0], 0.0F);
  EXPECT_EQ(cos[1], static_cast<float>(std::cos(1.0)) * 1.25F);
}

}  // namespace
}  // namespace troupe::models
