#include "engine/thread_executor.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <string>

#include "kernels/numerics.hpp"
#include "models/registry.hpp"
#include "tests/golden/model_runs.hpp"

namespace troupe::engine {
namespace {

using golden::loaded_model;
using golden::must;

kernels::numerics_profile portable() {
  return golden::profile_of(kernels::supported_paths(kernels::dtype::float32).back(),
                            kernels::dtype::float32);
}

// Starting ranks is a race of their threads with the one that starts them; many starts find it.
TEST(ThreadExecutor, StartsAndEndsManyRanksAgainAndAgain) {
  const loaded_model model(golden::models_folder() / "llama_plain");
  const sequence_log log = golden::log_of(golden::greedy_params(2), {1, 2, 3});
  const auto expected = golden::complete(*model.start(portable()), model.options(), {log});
  for (int i = 0; i < 30; ++i) {
    const auto ranks = model.start(portable(), {.tp_size = 8, .pp_size = 3, .kv_blocks = 2});
    if (i % 2 == 0) continue;  // ended before its first step
    const auto found = golden::complete(*ranks, model.options({.kv_blocks = 2}), {log});
    ASSERT_EQ(found[0].tokens, expected[0].tokens) << "start " << i;
  }
}

TEST(ThreadExecutor, ReportsEveryRanksBytesAndTheirSumWhileLoading) {
  const loaded_model model(golden::models_folder() / "qwen3_tied");
  std::atomic<std::uint64_t> last = 0;
  const auto ranks = must(thread_executor::start(
      {.files = &model.files(),
       .config = model.config(),
       .tp_size = 4,
       .pp_size = 2,
       .threads_per_rank = 1,
       .profile = portable(),
       .kv_blocks = 1,
       .progress = [&](std::uint64_t bytes) {
         std::uint64_t before = last;
         while (bytes > before && !last.compare_exchange_weak(before, bytes)) {
         }
       }}));
  const std::vector<std::uint64_t> bytes = ranks->weight_bytes();
  ASSERT_EQ(bytes.size(), 8U);
  EXPECT_EQ(std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0}), last.load());
  for (int rank = 0; rank < 8; ++rank) {
    models::weight_reader reader({.files = &model.files(),
                                  .type = kernels::dtype::float32,
                                  .pool = nullptr,
                                  .plan_only = true,
                                  .progress = {}});
    must(models::load({reader,
                       model.config(),
                       {.tp_rank = rank % 4, .tp_size = 4, .pp_rank = rank / 4, .pp_size = 2}}));
    EXPECT_EQ(bytes[static_cast<std::size_t>(rank)], reader.bytes()) << "rank " << rank;
  }
}

TEST(ThreadExecutor, ARankThatCannotLoadEndsTheStartWithItsError) {
  const loaded_model model(golden::models_folder() / "llama_plain");
  models::model_config config = model.config();
  config.num_hidden_layers = 4;  // the last stage's last layer is not in the files
  config.sliding_window.resize(4);
  const auto failed = thread_executor::start({.files = &model.files(),
                                              .config = config,
                                              .tp_size = 2,
                                              .pp_size = 2,
                                              .threads_per_rank = 1,
                                              .profile = portable(),
                                              .kv_blocks = 1,
                                              .progress = {}});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, base::error_code::not_found);
  EXPECT_NE(failed.error().message.find("model.layers.3."), std::string::npos)
      << failed.error().message;
}

TEST(ThreadExecutor, APlanOfAnotherEpochEndsEveryRankWithoutAHang) {
  const loaded_model model(golden::models_folder() / "llama_plain");
  const auto ranks = model.start(portable(), {.tp_size = 4, .pp_size = 3, .kv_blocks = 1});
  planned_rows rows;
  rows.sequence = base::sequence_id{1};
  rows.prompt_length = 1;
  rows.token_ids = {1};
  rows.block_tables = {{0}};
  rows.sample = sample_request{};
  const step_plan late{.epoch = {7, 7}, .step = 0, .sequences = {rows}};
  const auto refused = ranks->run(late);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::aborted);
  EXPECT_FALSE(ranks->run(late).has_value());
}

TEST(ThreadExecutor, APathThatThisCpuLacksIsRefusedOrRuns) {
  const loaded_model model(golden::models_folder() / "llama_plain");
  using kernels::instruction_path;
  const auto supported = kernels::supported_paths(kernels::dtype::bfloat16);
  for (const instruction_path path : {instruction_path::amx_bf16, instruction_path::avx512_bf16,
                                      instruction_path::avx512, instruction_path::avx2}) {
    const auto started =
        model.try_start(golden::profile_of(path, kernels::dtype::bfloat16), {.kv_blocks = 1});
    const bool has = std::find(supported.begin(), supported.end(), path) != supported.end();
    EXPECT_EQ(started.has_value(), has) << to_string(path);
    if (!started) {
      EXPECT_EQ(started.error().code, base::error_code::failed_precondition);
    }
  }
}

}  // namespace
}  // namespace troupe::engine
