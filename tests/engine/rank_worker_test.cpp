// What a rank shows of itself while it loads and computes.
#include "engine/rank_worker.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include "kernels/numerics.hpp"
#include "tests/golden/model_runs.hpp"
#include "transport/alone.hpp"

namespace troupe::engine {
namespace {

using golden::loaded_model;
using golden::must;

constexpr base::epoch_id epoch{1, 1};

struct shown {
  base::activity doing;
  std::int32_t thread;
};
shown look(const base::rank_vitals& vitals) {
  return {static_cast<base::activity>(vitals.doing.load()), vitals.thread_id.load()};
}

class RankVitals : public ::testing::Test {
 protected:
  std::unique_ptr<rank_worker> load() {
    const auto path = kernels::supported_paths(kernels::dtype::float32).back();
    return must(rank_worker::load({.files = &model_.files(),
                                   .config = model_.config(),
                                   .where = {},
                                   .profile = golden::profile_of(path, kernels::dtype::float32),
                                   .kv_blocks = 2,
                                   .progress = [this](std::uint64_t) { loading_ = look(vitals_); },
                                   .vitals = &vitals_}));
  }
  step_plan plan() const {
    const std::size_t groups = models::kv_groups(model_.config()).size();
    planned_rows rows;
    rows.prompt_length = 3;
    rows.token_ids = {1, 2, 3};
    rows.block_tables.assign(groups, {0});
    return {.epoch = epoch, .sequences = {rows}};
  }

  const loaded_model model_{golden::models_folder() / "llama_plain"};
  base::rank_vitals vitals_;
  std::optional<shown> loading_;
};

TEST_F(RankVitals, SayThatItWorksWhileItLoads) {
  const auto worker = load();
  ASSERT_TRUE(loading_.has_value());
  EXPECT_EQ(loading_->doing, base::activity::working);
  EXPECT_EQ(loading_->thread, ::gettid());
  EXPECT_EQ(look(vitals_).doing, base::activity::idle);
  EXPECT_EQ(look(vitals_).thread, 0);
}

TEST_F(RankVitals, SayThatItWorksWhileItComputesAndTick) {
  const auto worker = load();
  worker->join({.world = transport::make_alone(epoch),
                .tp = transport::make_alone(epoch),
                .pp = transport::make_alone(epoch)},
               epoch);
  vitals_.longest_tick_ns = 0;  // counts only what passes between ticks while it works
  const std::uint64_t before = vitals_.ticks;
  must(worker->run(plan()));
  EXPECT_GE(vitals_.ticks - before, 2U);  // the layers and the step
  EXPECT_GT(vitals_.longest_tick_ns, 0U);
  EXPECT_EQ(look(vitals_).doing, base::activity::idle);
  EXPECT_EQ(look(vitals_).thread, 0);
}

TEST_F(RankVitals, AreIdleAfterAStepThatFailed) {
  const auto worker = load();
  EXPECT_FALSE(worker->run(plan()).has_value());  // it joined no epoch
  EXPECT_EQ(look(vitals_).doing, base::activity::idle);
}

}  // namespace
}  // namespace troupe::engine
