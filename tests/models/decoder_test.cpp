// Whole models of tests/golden, planned and loaded: what every rank holds, and what is refused.
#include "models/decoder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/registry.hpp"

namespace troupe::models {
namespace {

using testing::ElementsAre;

struct case_files {
  explicit case_files(const std::string& name)
      : folder(std::filesystem::path(TROUPE_SOURCE_DIR) / "tests/golden/models" / name),
        files(checkpoint::open(folder).value()),
        config(read_config(folder).value()) {}
  std::filesystem::path folder;
  checkpoint files;
  model_config config;
};

struct loaded {
  std::uint64_t bytes = 0;
  base::result<std::unique_ptr<model>> made;
};

loaded load_rank(const case_files& of, placement where, kernels::dtype type,
                 kernels::thread_pool* pool) {
  weight_reader reader({.files = &of.files,
                        .type = type,
                        .pool = pool,
                        .plan_only = pool == nullptr,
                        .progress = {}});
  auto made = load({reader, of.config, where});
  return {reader.bytes(), std::move(made)};
}

TEST(Decoder, LayersWithEqualWindowsShareAGroupInOrderOfFirstUse) {
  model_config config;
  config.sliding_window = {std::nullopt, 24, std::nullopt, 24, 7};
  EXPECT_THAT(kv_groups(config),
              ElementsAre(kv_spec{}, kv_spec{kv_kind::sliding, 24}, kv_spec{kv_kind::sliding, 7}));
  EXPECT_THAT(kv_group_of_layers(config), ElementsAre(0, 1, 0, 1, 2));
  config.sliding_window = {24, 24};
  EXPECT_THAT(kv_groups(config), ElementsAre(kv_spec{kv_kind::sliding, 24}));
  EXPECT_EQ(kv_groups(config)[0].visible(), 24);
  EXPECT_EQ(kv_spec{}.visible(), std::nullopt);
}

TEST(Decoder, APlanCountsWhatLoadingTakesOnEveryRank) {
  kernels::thread_pool pool({.threads = 1});
  for (const char* const name :
       {"llama_14_heads_2_kv", "llama_sharded", "llama_tied", "llama_biases", "mistral_window_7",
        "qwen2_window_mixed", "qwen3_tied"}) {
    const case_files of(name);
    for (const kernels::dtype type : {kernels::dtype::float32, kernels::dtype::bfloat16}) {
      for (const int tp_size : {1, 2, 4}) {
        for (int rank = 0; rank < tp_size * 2; ++rank) {
          const placement where{.tp_rank = rank % tp_size,
                                .tp_size = tp_size,
                                .pp_rank = rank / tp_size,
                                .pp_size = 2};
          const loaded plan = load_rank(of, where, type, nullptr);
          const loaded real = load_rank(of, where, type, &pool);
          ASSERT_TRUE(plan.made.has_value()) << name << ": " << plan.made.error().message;
          ASSERT_TRUE(real.made.has_value()) << name << ": " << real.made.error().message;
          EXPECT_GT(real.bytes, 0U);
          EXPECT_EQ(plan.bytes, real.bytes) << name << " rank " << rank << " of " << 2 * tp_size;
          EXPECT_EQ((*real.made)->where().tp_rank, where.tp_rank);
        }
      }
    }
  }
}

TEST(Decoder, RanksShareTheWeightsInsteadOfCopyingThem) {
  // 64 x 8 runs: nothing but padding and norms is held twice.
  const case_files of("llama_plain");
  const std::uint64_t whole = load_rank(of, {}, kernels::dtype::float32, nullptr).bytes;
  for (const int tp_size : {2, 4}) {
    std::uint64_t largest = 0;
    for (int rank = 0; rank < tp_size; ++rank) {
      const placement where{.tp_rank = rank, .tp_size = tp_size};
      largest = std::max(largest, load_rank(of, where, kernels::dtype::float32, nullptr).bytes);
    }
    EXPECT_LT(largest, whole / static_cast<std::uint64_t>(tp_size) * 13 / 10) << "tp " << tp_size;
  }
}

TEST(Decoder, OnlyTheStagesThatUseAnEmbeddingHoldIt) {
  const auto bytes = [](const char* name, int pp_rank, int pp_size) {
    const case_files of(name);
    return load_rank(of, {.pp_rank = pp_rank, .pp_size = pp_size}, kernels::dtype::float32, nullptr)
        .bytes;
  };
  // llama_plain has 3 layers, 256 x 64 embeddings twice, and a last norm of 64.
  const std::uint64_t embedding = 256 * 64 * 4;
  EXPECT_EQ(bytes("llama_plain", 0, 3), bytes("llama_plain", 1, 3) + embedding);
  EXPECT_EQ(bytes("llama_plain", 2, 3), bytes("llama_plain", 1, 3) + embedding + 64 * 4);
  // Tied: 333 rows, padded to 336, on the first and the last stage; on one stage only once.
  const std::uint64_t tied = 336 * 64 * 4;
  EXPECT_EQ(bytes("llama_tied", 0, 3), bytes("llama_tied", 1, 3) + tied);
  EXPECT_EQ(bytes("llama_tied", 2, 3), bytes("llama_tied", 1, 3) + tied + 64 * 4);
  EXPECT_EQ(bytes("llama_tied", 0, 1), 3 * bytes("llama_tied", 1, 3) + tied + 64 * 4);
}

TEST(Decoder, EveryArchitectureIsKnownByHuggingFacesName) {
  std::vector<std::string_view> names;
  for (const architecture& known : architectures()) names.push_back(known.name);
  EXPECT_THAT(names, ElementsAre("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                 "Qwen3ForCausalLM"));
}

TEST(Decoder, AnUnknownArchitectureIsRefusedNamingTheKnownOnes) {
  case_files of("llama_plain");
  of.config.architecture = "MambaForCausalLM";
  const loaded refused = load_rank(of, {}, kernels::dtype::float32, nullptr);
  ASSERT_FALSE(refused.made.has_value());
  EXPECT_EQ(refused.made.error().code, base::error_code::unimplemented);
  EXPECT_EQ(refused.made.error().message,
            "config.json: architecture MambaForCausalLM is not one of LlamaForCausalLM, "
            "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM");
}

TEST(Decoder, AModelThatDoesNotFitItsConfigIsRefusedBeforeAnyWeightIsRead) {
  case_files of("llama_plain");
  of.config.intermediate_size = 96;
  EXPECT_EQ(load_rank(of, {}, kernels::dtype::float32, nullptr).made.error().message,
            "tensor model.layers.0.mlp.gate_proj.weight has shape [80, 64] but config.json makes "
            "it [96, 64]");
  case_files deeper("llama_plain");
  deeper.config.num_hidden_layers = 4;
  deeper.config.sliding_window.resize(4);
  const loaded missing = load_rank(deeper, {}, kernels::dtype::float32, nullptr);
  EXPECT_EQ(missing.made.error().code, base::error_code::not_found);
  EXPECT_THAT(missing.made.error().message,
              testing::HasSubstr("\"model.layers.3.input_layernorm.weight\""));
}

TEST(Decoder, APlacementThatTheModelDoesNotHaveIsRefused) {
  const case_files of("llama_5_heads");
  const loaded refused = load_rank(of, {.tp_size = 8}, kernels::dtype::float32, nullptr);
  ASSERT_FALSE(refused.made.has_value());
  EXPECT_THAT(refused.made.error().message, testing::HasSubstr("5 query heads"));
}

}  // namespace
}  // namespace troupe::models
