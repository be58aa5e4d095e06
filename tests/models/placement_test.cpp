#include "models/placement.hpp"

#include <gtest/gtest.h>

#include <string>

namespace troupe::models {
namespace {

model_config config_of(std::int64_t heads, std::int64_t kv_heads, std::int64_t layers = 4) {
  model_config config;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.num_hidden_layers = layers;
  config.head_dim = 8;
  config.intermediate_size = 100;
  config.vocab_size = 310;
  return config;
}

std::string refusal(const model_config& config, placement where) {
  const auto checked = check_placement(config, where);
  if (checked) return "accepted";
  EXPECT_EQ(checked.error().code, base::error_code::invalid_argument);
  return checked.error().message;
}

TEST(Placement, TensorParallelSizesAreOneTwoFourAndEight) {
  const model_config config = config_of(64, 8);
  for (const int size : {1, 2, 4, 8}) EXPECT_EQ(refusal(config, {.tp_size = size}), "accepted");
  for (const int size : {-1, 0, 3, 5, 6, 7, 16, 64}) {
    EXPECT_EQ(refusal(config, {.tp_size = size}),
              "tensor-parallel size " + std::to_string(size) + " is not 1, 2, 4 or 8");
  }
}

TEST(Placement, NoRankMayBeWithoutAQueryHead) {
  EXPECT_EQ(refusal(config_of(5, 5), {.tp_size = 4}), "accepted");
  EXPECT_EQ(refusal(config_of(5, 5), {.tp_size = 8}),
            "tensor-parallel size 8 is above the model's 5 query heads, so a rank would have none; "
            "use a smaller size");
  for (std::int64_t heads = 1; heads <= 40; ++heads) {
    for (const int size : {1, 2, 4, 8}) {
      if (size > heads) continue;
      for (int rank = 0; rank < size; ++rank) {
        EXPECT_GT(head_grid(config_of(heads, 1)).rank_range(rank, size).size(), 0)
            << heads << " heads, rank " << rank << " of " << size;
      }
    }
  }
}

TEST(Placement, StagesAreAtMostTheLayers) {
  EXPECT_EQ(refusal(config_of(8, 8, 3), {.pp_size = 3}), "accepted");
  EXPECT_EQ(refusal(config_of(8, 8, 3), {.pp_size = 4}),
            "pipeline-parallel size 4 is not between 1 and the model's 3 layers");
  EXPECT_EQ(refusal(config_of(8, 8, 3), {.pp_size = 0}),
            "pipeline-parallel size 0 is not between 1 and the model's 3 layers");
}

TEST(Placement, StagesTileTheLayersAndNoneIsEmpty) {
  for (std::int64_t layers = 1; layers <= 90; ++layers) {
    for (int stages = 1; stages <= static_cast<int>(std::min<std::int64_t>(layers, 12)); ++stages) {
      std::int64_t next = 0;
      for (int stage = 0; stage < stages; ++stage) {
        const range own =
            stage_layers(config_of(8, 8, layers), {.pp_rank = stage, .pp_size = stages});
        EXPECT_EQ(own.begin, next);
        EXPECT_GT(own.size(), 0) << layers << " layers, stage " << stage << " of " << stages;
        EXPECT_LE(own.size(), layers / stages + 1);
        next = own.end;
      }
      EXPECT_EQ(next, layers);
    }
  }
}

TEST(Placement, ARankHasExactlyTheKvHeadsItsQueryHeadsRead) {
  for (const auto& [heads, kv_heads] :
       {std::pair{8, 8}, {8, 2}, {14, 2}, {7, 1}, {12, 4}, {15, 5}, {40, 8}, {64, 8}}) {
    const model_config config = config_of(heads, kv_heads);
    const std::int64_t group = heads / kv_heads;
    for (const int size : {1, 2, 4, 8}) {
      if (size > heads) continue;
      for (int rank = 0; rank < size; ++rank) {
        const placement where{.tp_rank = rank, .tp_size = size};
        const range query = head_grid(config).rank_range(rank, size);
        const range kv = rank_kv_heads(config, where);
        EXPECT_EQ(kv.begin, query.begin / group);
        EXPECT_EQ(kv.end, (query.end - 1) / group + 1);
        EXPECT_LE(kv.end, kv_heads);
      }
    }
  }
}

TEST(Placement, HeadsAtABoundaryAreReplicated) {
  // 14 query heads over 2 KV heads: at size 8 every rank has its own copy of one of them.
  const model_config config = config_of(14, 2);
  EXPECT_EQ(rank_kv_heads(config, {.tp_rank = 0, .tp_size = 8}), (range{0, 1}));
  EXPECT_EQ(rank_kv_heads(config, {.tp_rank = 3, .tp_size = 8}), (range{0, 1}));
  EXPECT_EQ(rank_kv_heads(config, {.tp_rank = 4, .tp_size = 8}), (range{1, 2}));
  // 12 query heads over 4: at size 8 rank 1 has head 1 and 2, at size 4 rank 1 heads 3 to 5.
  EXPECT_EQ(rank_kv_heads(config_of(12, 4), {.tp_rank = 1, .tp_size = 8}), (range{0, 1}));
  EXPECT_EQ(rank_kv_heads(config_of(12, 4), {.tp_rank = 3, .tp_size = 8}), (range{1, 2}));
  // A group of 3 cut in its middle.
  EXPECT_EQ(rank_kv_heads(config_of(15, 5), {.tp_rank = 0, .tp_size = 2}), (range{0, 3}));
  EXPECT_EQ(rank_kv_heads(config_of(15, 5), {.tp_rank = 1, .tp_size = 2}), (range{2, 5}));
}

TEST(Placement, HeadRunsEndWhereTheirElementsDo) {
  const model_config config = config_of(5, 5);
  EXPECT_EQ(rank_head_run_ends(config, {}),
            (std::vector<std::int64_t>{0, 8, 8, 16, 24, 24, 32, 40}));
  EXPECT_EQ(rank_head_run_ends(config, {.tp_rank = 1, .tp_size = 4}),
            (std::vector<std::int64_t>{0, 8}));
}

TEST(Placement, GridsHaveTheUnitsThatEverySizeShares) {
  const model_config config = config_of(14, 2);
  EXPECT_EQ(head_grid(config).units(), 14);
  EXPECT_EQ(mlp_grid(config).units(), 4);         // 32 + 32 + 32 + 4
  EXPECT_EQ(vocabulary_grid(config).units(), 5);  // 4 * 64 + 54
}

}  // namespace
}  // namespace troupe::models
