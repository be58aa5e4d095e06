// Gangs in storms: 200 seeds, each replayed with `sim_tests --seed N`.
#include <gtest/gtest.h>

#include "tests/sim/storm.hpp"

namespace troupe::sim {
namespace {

constexpr std::uint64_t seeds_per_block = 10;

class GangStorm : public testing::TestWithParam<std::uint64_t> {};

TEST_P(GangStorm, KeepsItsPromisesAndFormsAgain) {
  std::uint64_t steps = 0;
  for (std::uint64_t seed = GetParam(); seed < GetParam() + seeds_per_block; ++seed) {
    SCOPED_TRACE(testing::Message() << "replay with: sim_tests --seed " << seed);
    const outcome result = run_storm(options_of(seed));
    EXPECT_EQ(result.violations, std::vector<std::string>{});
    EXPECT_TRUE(result.formed) << "no epoch answers";
    steps += result.steps;
  }
  EXPECT_GT(steps, 1000U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, GangStorm,
                         testing::Range(std::uint64_t{1}, std::uint64_t{201}, seeds_per_block),
                         [](const auto& block) { return "From" + std::to_string(block.param); });

}  // namespace
}  // namespace troupe::sim
