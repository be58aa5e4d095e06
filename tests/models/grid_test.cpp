#include "models/grid.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace troupe::models {
namespace {

// Sizes that divide, that do not, that leave runs empty, and none at all.
const std::vector<grid> grids = {{.size = 3072, .unit = 32},   {.size = 4864, .unit = 32},
                                 {.size = 1000, .unit = 32},   {.size = 33, .unit = 32},
                                 {.size = 31, .unit = 32},     {.size = 0, .unit = 32},
                                 {.size = 14, .unit = 1},      {.size = 3, .unit = 1},
                                 {.size = 151936, .unit = 64}, {.size = 1LL << 40, .unit = 64}};

TEST(Grid, RunsTileTheDimensionInWholeUnits) {
  for (const grid& g : grids) {
    std::int64_t end = 0;
    for (int j = 0; j < canonical_runs; ++j) {
      const range run = g.run(j);
      EXPECT_EQ(run.begin, end) << g.size;
      EXPECT_LE(run.begin, run.end) << g.size;
      EXPECT_TRUE(run.begin % g.unit == 0 || run.begin == g.size) << g.size;
      end = run.end;
    }
    EXPECT_EQ(end, g.size);
  }
}

TEST(Grid, RunsAreCutAtTheFloorOfTheirShare) {
  const grid heads{.size = 14, .unit = 1};
  const std::vector<std::int64_t> ends = {1, 3, 5, 7, 8, 10, 12, 14};
  for (int j = 0; j < canonical_runs; ++j) EXPECT_EQ(heads.run(j).end, ends[std::size_t(j)]);
  const grid short_unit{.size = 1000, .unit = 32};  // 32 units, the last of 8
  EXPECT_EQ(short_unit.run(0), (range{0, 128}));
  EXPECT_EQ(short_unit.run(7), (range{896, 1000}));
}

TEST(Grid, RunsDifferByAtMostOneUnit) {
  for (const grid& g : grids) {
    for (int j = 0; j + 1 < canonical_runs; ++j) {  // the last unit may be short
      const std::int64_t least = g.units() / canonical_runs * g.unit;
      EXPECT_GE(g.run(j).size(), std::min(least, g.size - g.run(j).begin));
      EXPECT_LE(g.run(j).size(), least + g.unit);
    }
  }
}

TEST(Grid, RanksOwnConsecutiveRunsAtEverySize) {
  for (const grid& g : grids) {
    for (const int tp_size : {1, 2, 4, 8}) {
      std::int64_t end = 0;
      for (int rank = 0; rank < tp_size; ++rank) {
        const range owned = g.rank_range(rank, tp_size);
        EXPECT_EQ(owned.begin, end);
        end = owned.end;
        const auto run_ends = g.rank_run_ends(rank, tp_size);
        ASSERT_EQ(run_ends.size(), std::size_t(canonical_runs / tp_size));
        for (std::size_t i = 0; i < run_ends.size(); ++i) {
          const int run = rank * canonical_runs / tp_size + static_cast<int>(i);
          EXPECT_EQ(owned.begin + run_ends[i], g.run(run).end) << g.size << " tp " << tp_size;
        }
      }
      EXPECT_EQ(end, g.size);
    }
  }
}

TEST(Grid, RangeContainsItsBeginAndNotItsEnd) {
  const range r{3, 5};
  EXPECT_FALSE(r.contains(2));
  EXPECT_TRUE(r.contains(3));
  EXPECT_TRUE(r.contains(4));
  EXPECT_FALSE(r.contains(5));
  EXPECT_EQ(r.size(), 2);
}

}  // namespace
}  // namespace troupe::models
