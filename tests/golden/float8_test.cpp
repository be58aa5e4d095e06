// A checkpoint in float8_e4m3 gives the bits of the checkpoint that holds its dequantised values,
// at every size.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/numerics.hpp"
#include "models/random_weights.hpp"
#include "models/registry.hpp"
#include "models/weight_digest.hpp"
#include "tests/golden/made_model.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::golden {
namespace {

using kernels::dtype;

std::vector<engine::sequence_log> probes(std::int64_t vocabulary) {
  std::vector<engine::sequence_log> logs;
  std::mt19937 random(11);
  for (const std::size_t tokens : {5, 40, 70}) {
    engine::sequence_log log = log_of(greedy_params(10), {});
    log.params.logprobs = 4;
    for (std::size_t i = 0; i < tokens; ++i) {
      log.prompt_ids.push_back(
          static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)));
    }
    logs.push_back(std::move(log));
  }
  return logs;
}

std::vector<completion> run(const loaded_model& model, kernels::numerics_profile profile,
                            const run_shape& shape) {
  return complete(*model.start(profile, shape), model.options(shape),
                  probes(model.config().vocab_size));
}

TEST(Float8, HasTheBitsOfItsDequantisedValuesAtEverySize) {
  const made_model quantised(made_weights::float8);
  const loaded_model model(quantised.path());
  ASSERT_TRUE(model.config().quantization.has_value());
  for (const dtype type : {dtype::bfloat16, dtype::float32}) {
    const made_model plain(type == dtype::bfloat16 ? made_weights::dequantised_bfloat16
                                                   : made_weights::dequantised_float32);
    const loaded_model reference(plain.path());
    const auto profile = profile_of(kernels::supported_paths(type).front(), type);
    const std::vector<completion> wanted = run(reference, profile, {});
    for (const run_shape& shape :
         {run_shape{}, run_shape{.tp_size = 2, .threads = 2, .chunk = 16},
          run_shape{.tp_size = 4, .pp_size = 2}, run_shape{.tp_size = 8}}) {
      const std::vector<completion> found = run(model, profile, shape);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_EQ(found[i].tokens, wanted[i].tokens) << shape << " sequence " << i;
      }
    }
  }
}

// The comparison above would hold of a reader that ignores codes too.
TEST(Float8, HasOtherBitsThanWhatWasQuantised) {
  const made_model quantised(made_weights::float8);
  const made_model original;
  const auto profile =
      profile_of(kernels::supported_paths(dtype::bfloat16).front(), dtype::bfloat16);
  EXPECT_NE(run(loaded_model(quantised.path()), profile, {})[0].tokens,
            run(loaded_model(original.path()), profile, {})[0].tokens);
}

TEST(Float8, APlanCountsWhatLoadingTakesOnEveryRank) {
  const made_model quantised(made_weights::float8);
  const loaded_model model(quantised.path());
  kernels::thread_pool pool({.threads = 1});
  for (const int tp_size : {1, 2, 8}) {
    for (int rank = 0; rank < tp_size; ++rank) {
      const auto bytes = [&](bool plan_only) {
        models::weight_reader reader({.files = &model.files(),
                                      .type = dtype::bfloat16,
                                      .pool = &pool,
                                      .plan_only = plan_only,
                                      .progress = {}});
        must(models::load({reader, model.config(), {.tp_rank = rank, .tp_size = tp_size}}));
        return reader.bytes();
      };
      EXPECT_EQ(bytes(true), bytes(false)) << "rank " << rank << " of " << tp_size;
    }
  }
}

TEST(Float8, TheWeightsDigestCoversTheScales) {
  const made_model quantised(made_weights::float8);
  const auto digest = [&] {
    const loaded_model model(quantised.path());
    kernels::thread_pool pool({.threads = 1});
    const auto made = must(models::weight_digest::make({.files = &model.files(),
                                                        .config = model.config(),
                                                        .where = {},
                                                        .whole = true,
                                                        .cache_folder = {}}));
    EXPECT_TRUE(made->finish(pool, {}).has_value());
    return made->root();
  };
  const base::digest before = digest();
  EXPECT_EQ(digest(), before);
  const loaded_model model(quantised.path());
  const auto* const scales =
      must(model.files().find("model.layers.0.mlp.down_proj.weight_scale_inv"));
  const auto at = static_cast<std::streamoff>(scales->offset + scales->bytes - 4);
  {
    std::fstream file(quantised.path() / "model.safetensors",
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 1));
  }
  EXPECT_NE(digest(), before);
}

TEST(Float8, RandomWeightsGiveFiniteLogprobs) {
  const made_model quantised(made_weights::float8);
  const models::model_config config = loaded_model(quantised.path()).config();
  const models::checkpoint files = must(models::random_weights(config));
  const auto ranks = must(engine::thread_executor::start(
      {.files = &files,
       .config = config,
       .profile = profile_of(kernels::supported_paths(dtype::bfloat16).front(), dtype::bfloat16),
       .kv_blocks = run_shape{}.kv_blocks,
       .max_num_batched_tokens = loaded_model::batched_tokens,
       .max_num_seqs = loaded_model::batched_sequences,
       .progress = {}}));
  const std::vector<completion> found =
      complete(*ranks, loaded_model(quantised.path()).options(), probes(config.vocab_size));
  for (const completion& each : found) {
    ASSERT_EQ(each.tokens.size(), 10U);
    for (const token_bits& token : each.tokens) {
      EXPECT_TRUE(std::isfinite(token.logprob));
      // Not one token for sure, as large weights would have it.
      EXPECT_LT(token.logprob, -1.0F);
    }
  }
}

}  // namespace
}  // namespace troupe::golden
