#include "models/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/models/config_cases.hpp"

namespace troupe::models {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::optional<std::int64_t> all_tokens = std::nullopt;

TEST(Config, ReadsAFileOfTransformersFour) {
  const auto config = parsed(json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 2,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})"));
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 32);
  EXPECT_EQ(config.num_key_value_heads, 8);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.intermediate_size, 8192);
  EXPECT_EQ(config.vocab_size, 128256);
  EXPECT_EQ(config.max_position_embeddings, 131072);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.hidden_act, activation::silu);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias || config.o_bias || config.mlp_bias);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_THAT(config.eos_token_ids, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(config.bos_token_id, 128000);
  EXPECT_THAT(config.sliding_window, ElementsAre(all_tokens, all_tokens));
  EXPECT_EQ(config.rope.type, rope_type::llama3);
  EXPECT_EQ(config.rope.rope_theta, 500000.0);
  EXPECT_EQ(config.rope.factor, 32.0);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 8192);
}

TEST(Config, ReadsAFileOfTransformersFive) {
  const auto config = parsed(json::parse(R"({
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "dtype": "float16",
    "eos_token_id": null, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "layer_types": ["full_attention", "full_attention"],
    "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 2, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    "sliding_window": null, "tie_word_embeddings": true, "transformers_version": "5.23.0",
    "use_sliding_window": false, "vocab_size": 151936})"));
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.dtype, "float16");
  EXPECT_EQ(config.rope.type, rope_type::standard);
  EXPECT_EQ(config.rope.rope_theta, 1e6);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
  EXPECT_FALSE(config.bos_token_id);
}

// Source: transformers 5.23, configuration_llama.py and its siblings.
TEST(Config, MissingFieldsHaveTheDefaultsOfTheArchitecture) {
  struct expectation {
    const char* name;
    std::int64_t vocab, intermediate, kv_heads, head_dim, positions;
    bool qkv_bias;
  };
  for (const auto& e : {expectation{"LlamaForCausalLM", 32000, 11008, 32, 128, 2048, false},
                        expectation{"MistralForCausalLM", 32000, 14336, 8, 128, 131072, false},
                        expectation{"Qwen2ForCausalLM", 151936, 22016, 32, 128, 32768, true},
                        expectation{"Qwen3ForCausalLM", 151936, 22016, 32, 128, 32768, false}}) {
    const auto config = parsed({{"architectures", {e.name}}});
    EXPECT_EQ(config.vocab_size, e.vocab) << e.name;
    EXPECT_EQ(config.hidden_size, 4096) << e.name;
    EXPECT_EQ(config.intermediate_size, e.intermediate) << e.name;
    EXPECT_EQ(config.num_hidden_layers, 32) << e.name;
    EXPECT_EQ(config.num_attention_heads, 32) << e.name;
    EXPECT_EQ(config.num_key_value_heads, e.kv_heads) << e.name;
    EXPECT_EQ(config.head_dim, e.head_dim) << e.name;
    EXPECT_EQ(config.max_position_embeddings, e.positions) << e.name;
    EXPECT_EQ(config.rms_norm_eps, 1e-6) << e.name;
    EXPECT_EQ(config.rope.rope_theta, 10000.0) << e.name;
    EXPECT_FALSE(config.tie_word_embeddings) << e.name;
    EXPECT_EQ(config.qkv_bias, e.qkv_bias) << e.name;
    EXPECT_FALSE(config.o_bias || config.mlp_bias) << e.name;
    EXPECT_EQ(config.sliding_window.size(), 32U) << e.name;
  }
}

TEST(Config, HeadDimIsGivenOrDerived) {
  EXPECT_EQ(parsed(small_with("head_dim", 6)).head_dim, 6);
  EXPECT_EQ(parsed(small_with("head_dim", nullptr)).head_dim, 16);
  EXPECT_EQ(parsed(small()).head_dim, 16);
  json qwen3 = small("Qwen3ForCausalLM");
  EXPECT_EQ(parsed(qwen3).head_dim, 128);  // its class default
  qwen3["head_dim"] = nullptr;
  EXPECT_THAT(refusal(qwen3), HasSubstr("field \"head_dim\" is null"));
}

TEST(Config, NullKeyValueHeadsMeanOneForEachHead) {
  for (const char* name : architecture_names) {
    json config = small(name);
    config["num_key_value_heads"] = nullptr;
    EXPECT_EQ(parsed(config).num_key_value_heads, 4) << name;
  }
  json llama = small();
  llama.erase("num_key_value_heads");
  EXPECT_EQ(parsed(llama).num_key_value_heads, 4);
}

TEST(Config, BiasesBelongToTheArchitecture) {
  const auto biases = [](const char* name, const char* field) {
    json config = small(name);
    config[field] = true;
    const auto c = parsed(config);
    return std::vector<bool>{c.qkv_bias, c.o_bias, c.mlp_bias};
  };
  EXPECT_THAT(biases("LlamaForCausalLM", "attention_bias"), ElementsAre(true, true, false));
  EXPECT_THAT(biases("LlamaForCausalLM", "mlp_bias"), ElementsAre(false, false, true));
  EXPECT_THAT(biases("Qwen3ForCausalLM", "attention_bias"), ElementsAre(true, true, false));
  EXPECT_THAT(biases("Qwen2ForCausalLM", "attention_bias"), ElementsAre(true, false, false));
  EXPECT_THAT(refusal(with(small("MistralForCausalLM"), "attention_bias", true)),
              HasSubstr("MistralForCausalLM has none"));
  EXPECT_THAT(refusal(with(small("Qwen2ForCausalLM"), "mlp_bias", true)),
              HasSubstr("Qwen2ForCausalLM has none"));
}

TEST(Config, ActivationNamesOfTransformers) {
  const auto act = [](const char* name) {
    return parsed(small_with("hidden_act", name)).hidden_act;
  };
  EXPECT_EQ(act("silu"), activation::silu);
  EXPECT_EQ(act("swish"), activation::silu);
  EXPECT_EQ(act("gelu"), activation::gelu);
  EXPECT_EQ(act("gelu_new"), activation::gelu_tanh);
  EXPECT_EQ(act("gelu_pytorch_tanh"), activation::gelu_tanh);
  for (const char* name : {"relu", "quick_gelu", "gelu_10", ""}) {
    EXPECT_THAT(refusal(small_with("hidden_act", name), base::error_code::unimplemented),
                HasSubstr("hidden_act"));
  }
}

TEST(Config, DtypeUnderEitherName) {
  EXPECT_EQ(parsed(small()).dtype, "");
  EXPECT_EQ(parsed(small_with("torch_dtype", "float32")).dtype, "float32");
  EXPECT_EQ(parsed(with(small_with("torch_dtype", "float32"), "dtype", "bfloat16")).dtype,
            "bfloat16");
  EXPECT_EQ(parsed(with(small_with("torch_dtype", "float32"), "dtype", nullptr)).dtype, "float32");
  EXPECT_THAT(refusal(small_with("dtype", "float64"), base::error_code::unimplemented),
              HasSubstr("\"float64\""));
}

TEST(Config, EosComesFromTheGenerationConfigWhenItSays) {
  const auto eos = [](const json& in_config, const std::string& generation) {
    return parsed(small_with("eos_token_id", in_config), generation).eos_token_ids;
  };
  EXPECT_THAT(eos(2, ""), ElementsAre(2));
  EXPECT_THAT(eos(nullptr, ""), IsEmpty());
  EXPECT_THAT(eos({3, 4, 3}, ""), ElementsAre(3, 4));
  EXPECT_THAT(eos(2, R"({"eos_token_id":[5,6]})"), ElementsAre(5, 6));
  EXPECT_THAT(eos(2, R"({"eos_token_id":7})"), ElementsAre(7));
  EXPECT_THAT(eos(2, R"({"temperature":0.5})"), ElementsAre(2));
  EXPECT_THAT(eos(2, R"({"eos_token_id":null})"), IsEmpty());
  // Published files say -1 for none, or name a token past the embedding: never chosen.
  EXPECT_THAT(eos(-1, ""), IsEmpty());
  EXPECT_THAT(eos({1, 100}, ""), ElementsAre(1));
  EXPECT_THAT(refusal(small(), base::error_code::invalid_argument, R"({"eos_token_id":"a"})"),
              AllOf(HasSubstr("generation_config.json"), HasSubstr("eos_token_id")));
}

TEST(Config, MistralSlidesEverywhereOrNowhere) {
  json mistral = small("MistralForCausalLM");
  EXPECT_THAT(parsed(mistral).sliding_window, ElementsAre(4096, 4096, 4096));
  mistral["sliding_window"] = 8;
  EXPECT_THAT(parsed(mistral).sliding_window, ElementsAre(8, 8, 8));
  mistral["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(refusal(mistral, base::error_code::unimplemented), HasSubstr("layer_types"));
  mistral["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  mistral["sliding_window"] = nullptr;
  EXPECT_THAT(parsed(mistral).sliding_window, ElementsAre(all_tokens, all_tokens, all_tokens));
}

TEST(Config, QwenSlidesInTheLayersItNames) {
  for (const char* name : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    json config = with(small(name), "sliding_window", 8);
    EXPECT_THAT(parsed(config).sliding_window, ElementsAre(all_tokens, all_tokens, all_tokens));
    config["use_sliding_window"] = true;
    EXPECT_THAT(parsed(config).sliding_window, ElementsAre(all_tokens, all_tokens, all_tokens));
    config["max_window_layers"] = 1;
    EXPECT_THAT(parsed(config).sliding_window, ElementsAre(all_tokens, 8, 8));
    config["layer_types"] = {"sliding_attention", "full_attention", "attention"};
    EXPECT_THAT(parsed(config).sliding_window, ElementsAre(8, all_tokens, all_tokens));
    config["use_sliding_window"] = false;
    EXPECT_THAT(refusal(config), HasSubstr("use_sliding_window is false"));
    config["layer_types"] = {"full_attention"};
    EXPECT_THAT(refusal(config), HasSubstr("one entry a layer (3)"));
    config["layer_types"] = {"full_attention", "full_attention", "linear_attention"};
    EXPECT_THAT(refusal(config, base::error_code::unimplemented), HasSubstr("linear_attention"));
  }
}

TEST(Config, LlamaIgnoresASlidingWindow) {
  EXPECT_THAT(parsed(small_with("sliding_window", 8)).sliding_window,
              ElementsAre(all_tokens, all_tokens, all_tokens));
}

TEST(Config, RefusesUnknownArchitecturesByName) {
  const auto unimplemented = base::error_code::unimplemented;
  EXPECT_THAT(
      refusal({{"architectures", {"GPT2LMHeadModel"}}, {"model_type", "gpt2"}}, unimplemented),
      AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("Qwen3ForCausalLM")));
  EXPECT_THAT(refusal({{"model_type", "mamba"}}, unimplemented), HasSubstr("mamba"));
  EXPECT_THAT(refusal(with(small(), "model_type", "mistral")), HasSubstr("model_type"));
  EXPECT_THAT(refusal(json::object()), HasSubstr("architectures"));
  EXPECT_THAT(refusal(with(small(), "architectures", "LlamaForCausalLM")),
              HasSubstr("list of at most 16 strings"));
  EXPECT_EQ(parsed({{"model_type", "qwen2"}}).architecture, "Qwen2ForCausalLM");
}

TEST(Config, RefusesFeaturesThatChangeTheMaths) {
  const auto unimplemented = base::error_code::unimplemented;
  for (const auto& [name, value] : {std::pair<const char*, json>{"attn_logit_softcapping", 50.0},
                                    {"final_logit_softcapping", 30.0},
                                    {"partial_rotary_factor", 0.5},
                                    {"is_causal", false},
                                    {"is_encoder_decoder", true},
                                    {"logits_scaling", 8.0},
                                    {"clip_qkv", 8.0},
                                    {"per_layer_config", {{"0", json::object()}}}}) {
    EXPECT_THAT(refusal(small_with(name, value), unimplemented), HasSubstr(name));
    EXPECT_TRUE(parse_config(small_with(name, nullptr).dump(), "")) << name;
  }
  EXPECT_TRUE(parse_config(small_with("partial_rotary_factor", 1).dump(), ""));
  EXPECT_TRUE(parse_config(small_with("logits_scaling", 1.0).dump(), ""));
}

TEST(Config, IgnoresFieldsItDoesNotKnow) {
  EXPECT_TRUE(parse_config(small_with("auto_map", {{"AutoConfig", "x.Y"}}).dump(), ""));
  EXPECT_TRUE(parse_config(small_with("pretraining_tp", 2).dump(), ""));
}

TEST(Config, RefusesValuesOutsideTheirBounds) {
  struct hostile {
    const char* field;
    json value;
    const char* message;
  };
  const std::vector<hostile> table = {
      {"hidden_size", -4, "is -4: give an integer from 1 to 262144"},
      {"hidden_size", 0, "is 0:"},
      {"hidden_size", 64.0, "is 64.0:"},
      {"hidden_size", "64", "is \"64\":"},
      {"hidden_size", true, "is true:"},
      {"hidden_size", nullptr, "is null:"},
      {"hidden_size", json::array({64}), "is a list of 1:"},
      {"hidden_size", 262145, "from 1 to 262144"},
      {"hidden_size", 18446744073709551615ULL, "is 18446744073709551615:"},
      {"hidden_size", 1e300, "give an integer"},
      {"num_hidden_layers", 1025, "from 1 to 1024"},
      {"num_attention_heads", 4097, "from 1 to 4096"},
      {"num_attention_heads", 3, "multiple of num_key_value_heads (2)"},
      {"num_key_value_heads", 0, "from 1 to 4096"},
      {"head_dim", 1026, "from 1 to 1024"},
      {"head_dim", 5, "even number"},
      {"intermediate_size", (1 << 20) + 1, "from 1 to 1048576"},
      {"vocab_size", (1 << 22) + 1, "from 1 to 4194304"},
      {"max_position_embeddings", (1LL << 28) + 1, "from 1 to 268435456"},
      {"rms_norm_eps", 0, "give a number from 1e-20 to 1"},
      {"rms_norm_eps", -1e-6, "is -1e-06:"},
      {"rms_norm_eps", "1e-6", "give a number"},
      {"rms_norm_eps", nullptr, "is null:"},
      {"tie_word_embeddings", 1, "give true or false"},
      {"attention_bias", nullptr, "give true or false"},
      {"mlp_bias", "yes", "give true or false"},
      {"hidden_act", 3, "give a string"},
      {"dtype", 3, "give a string"},
      {"eos_token_id", -2, "token id from 0 to 99"},
      {"eos_token_id", 1.0, "token id"},
      {"eos_token_id", 4294967296LL, "token id"},
      {"eos_token_id", 18446744073709551615ULL, "is 18446744073709551615"},
      {"eos_token_id", json(std::vector<int>(1025, 1)), "at most 1024"},
      {"eos_token_id", json::array({json::array()}), "token id"},
      {"architectures", json(std::vector<std::string>(17, "x")), "at most 16"},
      {"is_causal", 1, "give true or false"},
  };
  for (const hostile& h : table) {
    EXPECT_THAT(
        refusal(small_with(h.field, h.value)),
        AllOf(HasSubstr(std::string("config.json: ")), HasSubstr(h.field), HasSubstr(h.message)))
        << h.field << " " << h.value;
  }
  EXPECT_THAT(refusal(with(small_with("num_attention_heads", 6), "hidden_size", 64)),
              HasSubstr("so give head_dim"));
  json mistral = with(small("MistralForCausalLM"), "sliding_window", -1);
  EXPECT_THAT(refusal(mistral), HasSubstr("sliding_window"));
  mistral["sliding_window"] = 0;
  EXPECT_THAT(refusal(mistral), HasSubstr("give an integer from 1"));
}

TEST(Config, RefusesTextThatIsNoBoundedObject) {
  const auto message = [](const std::string& text) {
    const auto result = parse_config(text, "");
    return result ? std::string("accepted") : result.error().message;
  };
  EXPECT_THAT(message("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(message(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(message(R"({"a":1,"a":2})"), HasSubstr("twice"));
  EXPECT_THAT(message(R"({"a":)" + std::string(64, '[')), HasSubstr("deeper than 64"));
  EXPECT_THAT(message("{\"a\":\"" + std::string(config_limits::json_bytes_max, 'x') + "\"}"),
              HasSubstr("at most 4194304 are read"));
}

class ConfigFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("troupe_config_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::filesystem::path folder_;
};

TEST_F(ConfigFolder, ReadsBothFiles) {
  write("config.json", small_with("eos_token_id", 2).dump());
  EXPECT_THAT(read_config(folder_).value().eos_token_ids, ElementsAre(2));
  write("generation_config.json", R"({"eos_token_id":[5]})");
  EXPECT_THAT(read_config(folder_).value().eos_token_ids, ElementsAre(5));
  write("generation_config.json", "{");
  const auto broken = read_config(folder_);
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message,
              AllOf(HasSubstr(folder_.string()), HasSubstr("generation_config.json: not valid")));
}

TEST_F(ConfigFolder, NamesTheFolderOrFileThatIsMissing) {
  const auto no_file = read_config(folder_);
  ASSERT_FALSE(no_file);
  EXPECT_EQ(no_file.error().code, base::error_code::not_found);
  EXPECT_THAT(no_file.error().message, HasSubstr("config.json"));
  const auto no_folder = read_config(folder_ / "none");
  ASSERT_FALSE(no_folder);
  EXPECT_EQ(no_folder.error().code, base::error_code::not_found);
  EXPECT_THAT(no_folder.error().message, HasSubstr("no such folder"));
}

TEST_F(ConfigFolder, RefusesAFileThatIsTooLarge) {
  write("config.json", "{}");
  std::filesystem::resize_file(folder_ / "config.json", config_limits::json_bytes_max + 1);
  const auto result = read_config(folder_);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, base::error_code::invalid_argument);
  EXPECT_THAT(result.error().message, HasSubstr("at most 4194304 are read"));
}

}  // namespace
}  // namespace troupe::models
