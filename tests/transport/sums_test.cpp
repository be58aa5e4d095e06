#include "tests/transport/group_runner.hpp"
#include "transport/tree_sum.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace troupe::transport::testing {
namespace {

class Sums : public ::testing::TestWithParam<group_case> {};

INSTANTIATE_TEST_SUITE_P(All, Sums, ::testing::ValuesIn(cases_of({1, 2, 4, 8})), case_name);
INSTANTIATE_TEST_SUITE_P(Many, Sums,
                         ::testing::Values(group_case{implementation::threads, 16},
                                           group_case{implementation::threads, 64},
                                           group_case{implementation::shared_memory, 32},
                                           group_case{implementation::doubling, 16},
                                           group_case{implementation::halving, 32}),
                         case_name);

TEST_P(Sums, AllReduceGivesTheBitsOfTheTreeOnEveryRank) {
  const int size = GetParam().size;
  // 4096 floats are the last that go through the shared slots.
  const std::size_t longest = size > 8 ? 5001 : 100003;
  for (const std::size_t count : {0UL, 1UL, 7UL, 1001UL, 4096UL, 4097UL, longest}) {
    const std::vector<float> expected = reference_sum(count, size, count);
    run_group(GetParam(), [&](collective& group) {
      std::vector<float> values = adversarial(count, group.rank(), count);
      TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
      EXPECT_EQ(differing_bits(values, expected), 0U)
          << "rank " << group.rank() << ", " << count << " values";
    });
  }
}

TEST_P(Sums, ReduceScatterGivesEachRankItsPartInOrder) {
  const int size = GetParam().size;
  const std::size_t longest = size > 8 ? 601 : 10007;
  for (const std::size_t part : {0UL, 1UL, 7UL, 512UL, 513UL, longest}) {
    const std::size_t count = part * static_cast<std::size_t>(size);
    const std::vector<float> expected = reference_sum(part, size, count);
    run_group(GetParam(), [&](collective& group) {
      const std::vector<float> values = adversarial(part, group.rank(), count);
      std::vector<float> mine(part, 42.0F);
      TROUPE_EXPECT_OK(group.reduce_scatter_sum(epoch, values, mine));
      const auto begin = static_cast<std::size_t>(group.rank()) * part;
      EXPECT_EQ(differing_bits(mine, std::span(expected).subspan(begin, part)), 0U)
          << "rank " << group.rank() << ", parts of " << part;
      EXPECT_EQ(differing_bits(values, adversarial(part, group.rank(), count)), 0U);
    });
  }
}

TEST_P(Sums, ReduceScatterMayLeaveItsPartInPlace) {
  const int size = GetParam().size;
  for (const std::size_t part : {7UL, 5003UL}) {
    const std::size_t count = part * static_cast<std::size_t>(size);
    const std::vector<float> expected = reference_sum(part, size, count);
    run_group(GetParam(), [&](collective& group) {
      std::vector<float> values = adversarial(part, group.rank(), count);
      const auto begin = static_cast<std::size_t>(group.rank()) * part;
      const auto mine = std::span(values).subspan(begin, part);
      TROUPE_EXPECT_OK(group.reduce_scatter_sum(epoch, values, mine));
      EXPECT_EQ(differing_bits(mine, std::span(expected).subspan(begin, part)), 0U);
    });
  }
}

TEST_P(Sums, InfinitiesStayInfinite) {
  run_group(GetParam(), [&](collective& group) {
    const float infinity = std::numeric_limits<float>::infinity();
    std::vector<float> values = {infinity, group.rank() == 0 ? -infinity : 1.0F, 1.0F};
    TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
    EXPECT_EQ(values[0], infinity);
    EXPECT_EQ(values[1], -infinity);
    EXPECT_EQ(values[2], static_cast<float>(group.size()));
  });
}

TEST_P(Sums, ManyInARowKeepTheirOrder) {
  run_group(GetParam(), [&](collective& group) {
    for (int round = 0; round < 40; ++round) {
      // Long ones between short ones: both ways of the thread group, and its slots taking turns.
      const std::size_t count = round % 3 == 0 ? 5000 : 64;
      std::vector<float> values(count, static_cast<float>(round + group.rank()));
      ASSERT_TRUE(group.all_reduce_sum(epoch, values).has_value());
      const int ranks = group.size();
      const auto sum =
          static_cast<float>(ranks * round) + static_cast<float>(ranks * (ranks - 1)) / 2.0F;
      for (const float value : values) ASSERT_EQ(value, sum) << "round " << round;
    }
  });
}

// Principle 1: eight canonical partial sums, held by 1, 2, 4 or 8 ranks as whole subtrees.
TEST(SumsOverSubtrees, GiveTheSameBitsAtEveryGroupSize) {
  constexpr std::size_t count = 5003;
  const std::vector<float> expected = reference_sum(77, 8, count);
  for (const group_case which : cases_of({1, 2, 4, 8})) {
    run_group(which, [&](collective& group) {
      const int runs = 8 / group.size();
      std::vector<std::vector<float>> partials;
      std::vector<const float*> sources;
      for (int run = 0; run < runs; ++run) {
        partials.push_back(adversarial(77, group.rank() * runs + run, count));
        sources.push_back(partials.back().data());
      }
      std::vector<float> values(count);
      tree_sum(sources, values);
      TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
      EXPECT_EQ(differing_bits(values, expected), 0U)
          << name_of(which.kind) << " with " << group.size() << " ranks";
    });
  }
}

TEST(SumsOverSubtrees, DoublingAndHalvingMeetAtTheirThreshold) {
  constexpr std::size_t least = 4096;
  for (const std::size_t count : {least / 4 - 1, least / 4, least / 4 + 1}) {
    const std::vector<float> expected = reference_sum(count, 8, count);
    simulated_network network({.seed = count, .size = 8});
    network.run([&](std::unique_ptr<point_to_point> peers) {
      message_collective group(std::move(peers), epoch, {.halving_bytes_min = least});
      std::vector<float> values = adversarial(count, group.rank(), count);
      TROUPE_EXPECT_OK(group.all_reduce_sum(epoch, values));
      EXPECT_EQ(differing_bits(values, expected), 0U);
    });
  }
}

}  // namespace
}  // namespace troupe::transport::testing
