// quantization_config: what is taken, and what is refused with what is taken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/config_cases.hpp"

namespace troupe::models {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// As Qwen3-8B-FP8 has it.
json fp8() {
  return {{"quant_method", "fp8"},
          {"fmt", "e4m3"},
          {"activation_scheme", "dynamic"},
          {"weight_block_size", {128, 128}}};
}

json quantised(const json& by) { return small_with("quantization_config", by); }

TEST(ConfigQuantization, TakesFp8InBlocks) {
  EXPECT_FALSE(parsed(small()).quantization.has_value());
  EXPECT_FALSE(parsed(quantised(nullptr)).quantization.has_value());
  const model_config config = parsed(quantised(fp8()));
  ASSERT_TRUE(config.quantization.has_value());
  EXPECT_TRUE(config.quantization->modules_to_not_convert.empty());
}

TEST(ConfigQuantization, FieldsThatChangeNothingHereMayBeThereOrNot) {
  json least = fp8();
  least.erase("fmt");
  least.erase("activation_scheme");
  EXPECT_TRUE(parsed(quantised(least)).quantization.has_value());
  EXPECT_TRUE(parsed(quantised(with(fp8(), "scale_fmt", "ue8m0"))).quantization.has_value());
}

TEST(ConfigQuantization, RefusesOtherMethodsNamingWhatIsTaken) {
  const auto unimplemented = base::error_code::unimplemented;
  for (const char* const method : {"gptq", "awq", "bitsandbytes", "compressed-tensors"}) {
    EXPECT_THAT(refusal(quantised({{"quant_method", method}}), unimplemented),
                AllOf(HasSubstr("config.json: field \"quantization_config\""), HasSubstr(method),
                      HasSubstr("\"fp8\" in blocks of 128 x 128")));
  }
  for (const json& odd : {json::object(), json("fp8"), json::array({"fp8"}),
                          json{{"quant_method", nullptr}}, json{{"quant_method", 8}}}) {
    EXPECT_THAT(refusal(quantised(odd), unimplemented), HasSubstr("\"fp8\" in blocks"));
  }
  EXPECT_THAT(refusal(small_with("compression_config", fp8()), unimplemented),
              HasSubstr("compression_config"));
}

TEST(ConfigQuantization, RefusesOtherBlocksFormatsAndSchemes) {
  const auto unimplemented = base::error_code::unimplemented;
  for (const json& size :
       {json({64, 128}), json({128}), json({128, 128, 1}), json(128), json(nullptr), json("128")}) {
    EXPECT_THAT(refusal(quantised(with(fp8(), "weight_block_size", size)), unimplemented),
                AllOf(HasSubstr("config.json: quantization_config: field \"weight_block_size\""),
                      HasSubstr("128 x 128")));
  }
  json whole = fp8();
  whole.erase("weight_block_size");
  EXPECT_THAT(refusal(quantised(whole), unimplemented), HasSubstr("is missing"));
  EXPECT_THAT(refusal(quantised(with(fp8(), "fmt", "e5m2")), unimplemented),
              AllOf(HasSubstr("\"fmt\" is \"e5m2\""), HasSubstr("e4m3")));
  EXPECT_THAT(refusal(quantised(with(fp8(), "activation_scheme", "static")), unimplemented),
              AllOf(HasSubstr("\"activation_scheme\" is \"static\""), HasSubstr("dynamic")));
  EXPECT_THAT(refusal(quantised(with(fp8(), "fmt", 4))), HasSubstr("give a string"));
}

TEST(ConfigQuantization, BoundsTheListOfModules) {
  const json many(config_limits::modules_max + 1, "lm_head");
  EXPECT_THAT(refusal(quantised(with(fp8(), "modules_to_not_convert", many))),
              HasSubstr("give a list of at most 16384 strings"));
  const model_config config =
      parsed(quantised(with(fp8(), "modules_to_not_convert", {"lm_head", "gate"})));
  EXPECT_THAT(config.quantization->modules_to_not_convert, ElementsAre("lm_head", "gate"));
}

TEST(ConfigQuantization, SaysWhichMatricesAreConverted) {
  const float8_quantization all;
  EXPECT_TRUE(all.converts("model.layers.3.mlp.down_proj.weight"));
  EXPECT_FALSE(all.converts("model.layers.3.mlp.down_proj.bias"));
  EXPECT_FALSE(all.converts("lm_head.weight"));
  EXPECT_FALSE(all.converts("model.embed_tokens.weight"));
  const float8_quantization some{.modules_to_not_convert = {"model.layers.1", "o_proj", ""}};
  EXPECT_FALSE(some.converts("model.layers.1.mlp.up_proj.weight"));
  EXPECT_TRUE(some.converts("model.layers.11.mlp.up_proj.weight"));
  EXPECT_FALSE(some.converts("model.layers.2.self_attn.o_proj.weight"));
  EXPECT_TRUE(some.converts("model.layers.2.self_attn.q_proj.weight"));
}

}  // namespace
}  // namespace troupe::models
