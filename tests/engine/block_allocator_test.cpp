#include "engine/block_allocator.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace troupe::engine {
namespace {

TEST(BlockAllocator, HandsOutEveryBlockOnceAndThenNone) {
  block_allocator blocks(5);
  std::set<std::int32_t> taken;
  while (const auto block = blocks.take()) {
    EXPECT_TRUE(*block >= 0 && *block < 5);
    EXPECT_TRUE(taken.insert(*block).second) << "block " << *block << " twice";
  }
  EXPECT_EQ(taken.size(), 5U);
  EXPECT_EQ(blocks.free_blocks(), 0);
  EXPECT_EQ(blocks.blocks(), 5);
}

TEST(BlockAllocator, AnEmptyPoolHasNoBlock) {
  block_allocator blocks(0);
  EXPECT_FALSE(blocks.take().has_value());
  EXPECT_EQ(blocks.free_blocks(), 0);
}

TEST(BlockAllocator, ReusesTheWarmestBlockFirst) {
  block_allocator blocks(4);
  const auto first = blocks.take();
  const auto second = blocks.take();
  blocks.give_back(*first);
  blocks.give_back(*second);
  EXPECT_EQ(blocks.take(), second);
  EXPECT_EQ(blocks.take(), first);
}

TEST(BlockAllocator, NeverHandsOutATakenBlockInAnyOrderOfTakingAndGivingBack) {
  constexpr unsigned seed = 20261121;
  std::mt19937 random(seed);
  block_allocator blocks(37);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 5000; ++i) {
    if (random() % 2 == 0) {
      const auto block = blocks.take();
      ASSERT_EQ(block.has_value(), held.size() < 37) << "seed " << seed << " turn " << i;
      if (!block) continue;
      ASSERT_EQ(std::count(held.begin(), held.end(), *block), 0) << "seed " << seed;
      held.push_back(*block);
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      blocks.give_back(held.back());
      held.pop_back();
    }
    ASSERT_EQ(blocks.free_blocks(), 37 - static_cast<std::int64_t>(held.size()));
  }
}

TEST(BlockAllocatorDeathTest, RefusesABlockThatIsNotTaken) {
  block_allocator blocks(3);
  const auto block = blocks.take();
  blocks.give_back(*block);
  EXPECT_DEATH(blocks.give_back(*block), "taken_");
  EXPECT_DEATH(blocks.give_back(3), "taken_");
}

}  // namespace
}  // namespace troupe::engine
