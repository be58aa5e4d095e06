#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/config.hpp"
#include "tests/models/config_cases.hpp"

namespace troupe::models {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

rope_parameters rope_of(const char* text) {
  json config = small();
  config.update(json::parse(text));
  return parsed(config).rope;
}

std::string rope_refusal(const char* text,
                         base::error_code code = base::error_code::invalid_argument) {
  json config = small();
  config.update(json::parse(text));
  return refusal(config, code);
}

TEST(ConfigRope, OldAndNewSpellingGiveTheSame) {
  struct pair {
    const char* old_text;
    const char* new_text;
    rope_type type;
  };
  const std::vector<pair> table = {
      {R"({"rope_theta":5e5,"rope_scaling":null})",
       R"({"rope_parameters":{"rope_type":"default","rope_theta":5e5}})", rope_type::standard},
      {R"({"rope_theta":5e5,"rope_scaling":{"type":"linear","factor":2}})",
       R"({"rope_parameters":{"rope_type":"linear","rope_theta":5e5,"factor":2}})",
       rope_type::linear},
      {R"({"rope_theta":5e5,"rope_scaling":{"rope_type":"dynamic","factor":2}})",
       R"({"rope_parameters":{"rope_type":"dynamic","rope_theta":5e5,"factor":2}})",
       rope_type::dynamic},
      {R"({"rope_theta":5e5,"rope_scaling":{"type":"yarn","factor":2,
          "original_max_position_embeddings":128}})",
       R"({"rope_parameters":{"rope_type":"yarn","rope_theta":5e5,"factor":2},
          "original_max_position_embeddings":128})",
       rope_type::yarn}};
  for (const pair& p : table) {
    const rope_parameters a = rope_of(p.old_text);
    const rope_parameters b = rope_of(p.new_text);
    EXPECT_EQ(a.type, p.type) << p.old_text;
    EXPECT_EQ(b.type, p.type) << p.new_text;
    EXPECT_EQ(a.rope_theta, 5e5);
    EXPECT_EQ(b.rope_theta, 5e5);
    EXPECT_EQ(a.factor, b.factor) << p.old_text;
    EXPECT_EQ(a.original_max_position_embeddings, b.original_max_position_embeddings);
  }
}

// Source: transformers 5.23, convert_rope_params_to_dict and standardize_rope_params.
TEST(ConfigRope, PrecedenceIsThatOfTransformers) {
  // The object's own theta before the one outside; the default where there is none.
  EXPECT_EQ(rope_of(R"({"rope_theta":5.0,"rope_parameters":{"rope_theta":7.0}})").rope_theta, 7.0);
  EXPECT_EQ(rope_of(R"({"rope_theta":5.0,"rope_parameters":{"rope_type":"default"}})").rope_theta,
            5.0);
  EXPECT_EQ(rope_of("{}").rope_theta, 10000.0);
  // "rope_type" before "type"; a non-empty rope_scaling before rope_parameters.
  EXPECT_EQ(rope_of(R"({"rope_scaling":{"type":"yarn","rope_type":"linear","factor":2}})").type,
            rope_type::linear);
  EXPECT_EQ(rope_of(R"({"rope_scaling":{"type":"linear","factor":2},
                        "rope_parameters":{"rope_type":"dynamic","factor":4}})")
                .type,
            rope_type::linear);
  EXPECT_EQ(
      rope_of(R"({"rope_scaling":{},"rope_parameters":{"rope_type":"dynamic","factor":4}})").type,
      rope_type::dynamic);
  // The trained length outside before the one inside, max_position_embeddings where there is none.
  const char* both = R"({"original_max_position_embeddings":64, "rope_parameters":
      {"rope_type":"yarn","factor":2,"original_max_position_embeddings":32}})";
  EXPECT_EQ(rope_of(both).original_max_position_embeddings, 64);
  EXPECT_EQ(rope_of(R"({"rope_parameters":{"rope_type":"yarn","factor":2}})")
                .original_max_position_embeddings,
            256);
  EXPECT_EQ(rope_of(R"({"rope_parameters":{"rope_type":"dynamic","factor":2,
                        "original_max_position_embeddings":32}})")
                .original_max_position_embeddings,
            256);
}

TEST(ConfigRope, YarnFieldsAndTheirDefaults) {
  const rope_parameters plain = rope_of(R"({"rope_parameters":{"rope_type":"yarn","factor":2}})");
  EXPECT_FALSE(plain.attention_factor || plain.mscale || plain.mscale_all_dim);
  EXPECT_EQ(plain.beta_fast, 32.0);
  EXPECT_EQ(plain.beta_slow, 1.0);
  EXPECT_TRUE(plain.truncate);
  const rope_parameters full = rope_of(R"({"rope_parameters":{"rope_type":"yarn","factor":2,
      "attention_factor":1.5,"mscale":0.7,"mscale_all_dim":1.0,"beta_fast":16,"beta_slow":2,
      "truncate":false}})");
  EXPECT_EQ(full.attention_factor, 1.5);
  EXPECT_EQ(full.mscale, 0.7);
  EXPECT_EQ(full.mscale_all_dim, 1.0);
  EXPECT_EQ(full.beta_fast, 16.0);
  EXPECT_EQ(full.beta_slow, 2.0);
  EXPECT_FALSE(full.truncate);
  EXPECT_EQ(rope_of(R"({"rope_parameters":{"rope_type":"yarn","factor":null,
                        "original_max_position_embeddings":64}})")
                .factor,
            4.0);
}

TEST(ConfigRope, LayerTypesMustAgree) {
  const char* same = R"({"rope_parameters":{
      "full_attention":{"rope_type":"linear","factor":2,"rope_theta":7.0},
      "sliding_attention":{"rope_type":"linear","factor":2,"rope_theta":7.0}}})";
  EXPECT_EQ(rope_of(same).type, rope_type::linear);
  EXPECT_EQ(rope_of(same).rope_theta, 7.0);
  EXPECT_THAT(rope_refusal(R"({"rope_parameters":{"full_attention":{"rope_theta":7.0},
                               "sliding_attention":{"rope_theta":8.0}}})",
                           base::error_code::unimplemented),
              HasSubstr("different rotary parameters"));
  EXPECT_THAT(rope_refusal(R"({"rope_parameters":{"full_attention":3}})"),
              HasSubstr("\"full_attention\" is 3"));
}

TEST(ConfigRope, RefusesTypesItDoesNotHave) {
  for (const char* type : {"longrope", "su", "mrope", "proportional", "axial"}) {
    const json config = small_with("rope_scaling", {{"type", type}, {"factor", 2.0}});
    EXPECT_THAT(refusal(config, base::error_code::unimplemented),
                AllOf(HasSubstr(type), HasSubstr("llama3")));
  }
  EXPECT_THAT(rope_refusal(R"({"rope_scaling":{"type":"lniear","factor":2}})"),
              HasSubstr("\"type\" is \"lniear\""));
  EXPECT_THAT(rope_refusal(R"({"rope_parameters":{"rope_type":null}})"), HasSubstr("is null"));
}

TEST(ConfigRope, RefusesValuesOutsideTheirBounds) {
  struct hostile {
    const char* text;
    const char* message;
  };
  const std::vector<hostile> table = {
      {R"({"rope_scaling":3})", "field \"rope_scaling\" is 3: give an object or null"},
      {R"({"rope_scaling":["linear"]})", "a list of 1"},
      {R"({"rope_theta":0})", "\"rope_theta\" is 0"},
      {R"({"rope_theta":-1e4})", "from 1 to 1000000000000"},
      {R"({"rope_theta":1e13})", "from 1 to 1000000000000"},
      {R"({"rope_theta":null})", "\"rope_theta\" is null"},
      {R"({"rope_theta":"1e4"})", "give a number"},
      {R"({"rope_scaling":{"type":"linear"}})", "rope_scaling: field \"factor\" is missing"},
      {R"({"rope_scaling":{"type":"linear","factor":0.5}})", "from 1 to 1000000"},
      {R"({"rope_scaling":{"type":"linear","factor":1e7}})", "from 1 to 1000000"},
      {R"({"rope_scaling":{"type":"dynamic","factor":null}})", "\"factor\" is null"},
      {R"({"rope_scaling":{"type":"llama3","factor":8,"high_freq_factor":4}})",
       "\"low_freq_factor\" is missing"},
      {R"({"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4}})",
       "greater than low_freq_factor (4)"},
      {R"({"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":0,"high_freq_factor":4}})",
       "\"low_freq_factor\" is 0"},
      {R"({"rope_scaling":{"type":"yarn","factor":2,"original_max_position_embeddings":0}})",
       "give an integer from 1 to 268435456"},
      {R"({"rope_scaling":{"type":"yarn","factor":2},"original_max_position_embeddings":1.5})",
       "config.json: field \"original_max_position_embeddings\" is 1.5"},
      {R"({"rope_scaling":{"type":"yarn","factor":2,"attention_factor":0}})",
       "\"attention_factor\" is 0"},
      {R"({"rope_scaling":{"type":"yarn","factor":2,"beta_fast":-1}})", "\"beta_fast\" is -1"},
      {R"({"rope_scaling":{"type":"yarn","factor":2,"mscale":"1"}})", "\"mscale\" is \"1\""},
      {R"({"rope_scaling":{"type":"yarn","factor":2,"truncate":1}})", "give true or false"},
      {R"({"rope_scaling":{"type":"yarn","factor":2},"rope_theta":1})", "a number above 1"},
      {R"({"rope_scaling":{"type":"yarn","factor":null,"original_max_position_embeddings":512}})",
       "which is 0.5"},
      {R"({"head_dim":2,"rope_scaling":{"type":"dynamic","factor":2}})", "head_dim of at least 4"},
  };
  for (const hostile& h : table) EXPECT_THAT(rope_refusal(h.text), HasSubstr(h.message)) << h.text;
}

TEST(ConfigRope, RefusesPartialRotaryInsideToo) {
  EXPECT_THAT(rope_refusal(R"({"rope_parameters":{"partial_rotary_factor":0.25}})",
                           base::error_code::unimplemented),
              HasSubstr("rope_parameters: field \"partial_rotary_factor\" is 0.25"));
}

}  // namespace
}  // namespace troupe::models
