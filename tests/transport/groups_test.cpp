#include "transport/groups.hpp"

#include "tests/transport/group_runner.hpp"

#include <gtest/gtest.h>

namespace troupe::transport::testing {
namespace {

TEST(Groups, WorldRankIsStageTimesTpSizePlusTpRank) {
  for (const auto& [tp_size, pp_size] : {std::pair{1, 1}, {4, 1}, {1, 3}, {2, 3}, {8, 8}}) {
    const auto world = make_thread_world({.tp_size = tp_size, .pp_size = pp_size}, epoch);
    ASSERT_EQ(world.size(), static_cast<std::size_t>(tp_size * pp_size));
    for (int rank = 0; rank < tp_size * pp_size; ++rank) {
      const rank_groups& mine = world[static_cast<std::size_t>(rank)];
      EXPECT_EQ(mine.world->rank(), rank);
      EXPECT_EQ(mine.world->size(), tp_size * pp_size);
      EXPECT_EQ(mine.tp->rank(), rank % tp_size);
      EXPECT_EQ(mine.tp->size(), tp_size);
      EXPECT_EQ(mine.pp->rank(), rank / tp_size);
      EXPECT_EQ(mine.pp->size(), pp_size);
    }
  }
}

TEST(Groups, EachGroupHoldsTheRanksItShould) {
  within(std::chrono::seconds(60), [] {
    auto world = make_thread_world({.tp_size = 4, .pp_size = 2}, epoch);
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < world.size(); ++rank) {
      threads.emplace_back([&, rank] {
        const rank_groups& mine = world[rank];
        std::vector<float> values = {static_cast<float>(1U << rank)};
        TROUPE_EXPECT_OK(mine.tp->all_reduce_sum(epoch, values));
        EXPECT_EQ(values[0], rank < 4 ? 15.0F : 240.0F);
        values = {static_cast<float>(1U << rank)};
        TROUPE_EXPECT_OK(mine.pp->all_reduce_sum(epoch, values));
        EXPECT_EQ(values[0], static_cast<float>((1U << (rank % 4)) + (16U << (rank % 4))));
        values = {static_cast<float>(1U << rank)};
        TROUPE_EXPECT_OK(mine.world->all_reduce_sum(epoch, values));
        EXPECT_EQ(values[0], 255.0F);
      });
    }
  });
}

TEST(Groups, AbortOfOneGroupEndsTheWaitsOfTheWholeWorld) {
  within(std::chrono::seconds(60), [] {
    auto world = make_thread_world({.tp_size = 2, .pp_size = 3}, epoch);
    std::vector<std::jthread> threads;
    for (std::size_t rank = 1; rank < world.size(); ++rank) {
      threads.emplace_back([&, rank] {
        // Rank 0 is in none of these, or never comes.
        rank_groups& mine = world[rank];
        collective& waits_in = rank % 2 == 1 ? *mine.world : *mine.pp;
        base::result<void> last;
        while (last) last = waits_in.barrier(epoch);
        EXPECT_EQ(last.error().code, base::error_code::aborted);
      });
    }
    world[0].tp->abort();
  });
}

TEST(Groups, SplitOrdersByKeyThenRankAndLeavesOutTheColorless) {
  const std::vector<split_choice> choices = {{.color = 7, .key = 2},  {.color = 3, .key = 0},
                                             {.color = std::nullopt}, {.color = 7, .key = 1},
                                             {.color = 7, .key = 2},  {.color = 3, .key = 0}};
  const split_plan plan = plan_split(choices);
  EXPECT_EQ(plan.sizes, (std::vector<int>{2, 3}));  // color 3, then color 7
  const auto seat = [&](std::size_t rank) {
    return std::pair(plan.seats[rank].group, plan.seats[rank].rank);
  };
  EXPECT_EQ(seat(0), std::pair(1, 1));
  EXPECT_EQ(seat(1), std::pair(0, 0));
  EXPECT_EQ(seat(2).first, -1);
  EXPECT_EQ(seat(3), std::pair(1, 0));
  EXPECT_EQ(seat(4), std::pair(1, 2));
  EXPECT_EQ(seat(5), std::pair(0, 1));

  const auto handles = make_thread_split(choices, epoch);
  EXPECT_EQ(handles[2], nullptr);
  EXPECT_EQ(handles[4]->rank(), 2);
  EXPECT_EQ(handles[4]->size(), 3);
}

}  // namespace
}  // namespace troupe::transport::testing
