#include "engine/block_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace troupe::engine {
namespace {

block_content content_of(std::uint8_t number, std::uint32_t tenant = 0) {
  block_content content{.key = {}, .tokens = {}, .tenant = tenant};
  content.key[0] = number;
  content.tokens[0] = number;
  return content;
}

TEST(BlockPool, HandsOutEveryBlockOnceAndThenNone) {
  block_pool blocks(5);
  std::set<std::int32_t> taken;
  while (const auto block = blocks.take()) {
    EXPECT_TRUE(*block >= 0 && *block < 5);
    EXPECT_TRUE(taken.insert(*block).second) << "block " << *block << " twice";
  }
  EXPECT_EQ(taken.size(), 5U);
  EXPECT_EQ(blocks.free_blocks(), 0);
  EXPECT_EQ(blocks.blocks(), 5);
}

TEST(BlockPool, AnEmptyPoolHasNoBlock) {
  block_pool blocks(0);
  EXPECT_FALSE(blocks.take().has_value());
  EXPECT_EQ(blocks.free_blocks(), 0);
}

TEST(BlockPool, ReusesTheWarmestBlockFirst) {
  block_pool blocks(4);
  const auto first = blocks.take();
  const auto second = blocks.take();
  blocks.give_back(*first);
  blocks.give_back(*second);
  EXPECT_EQ(blocks.take(), second);
  EXPECT_EQ(blocks.take(), first);
}

TEST(BlockPool, FindsAKeptBlockWhenItsLastUserHasGone) {
  block_pool blocks(2);
  const auto block = blocks.take();
  blocks.keep(*block, content_of(7));
  blocks.give_back(*block);
  EXPECT_EQ(blocks.free_blocks(), 2);
  EXPECT_EQ(blocks.kept_blocks(), 1);
  EXPECT_EQ(blocks.share(content_of(7).key, content_of(7).tokens), block);
  EXPECT_EQ(blocks.free_blocks(), 1);
  EXPECT_EQ(blocks.kept_blocks(), 0);
}

TEST(BlockPool, ComparesTheTokensAndNotOnlyTheKey) {
  block_pool blocks(2);
  const auto block = blocks.take();
  blocks.keep(*block, content_of(7));
  EXPECT_FALSE(blocks.share(content_of(7).key, content_of(8).tokens).has_value());
  EXPECT_FALSE(blocks.share(content_of(8).key, content_of(8).tokens).has_value());
}

TEST(BlockPool, ASharedBlockStaysUntilItsLastUserGivesItBack) {
  block_pool blocks(1);
  const auto block = blocks.take();
  blocks.keep(*block, content_of(1));
  ASSERT_TRUE(blocks.share(content_of(1).key, content_of(1).tokens).has_value());
  blocks.give_back(*block);
  EXPECT_EQ(blocks.free_blocks(), 0);
  EXPECT_FALSE(blocks.take().has_value());
  blocks.give_back(*block);
  EXPECT_EQ(blocks.free_blocks(), 1);
}

TEST(BlockPool, FreeBlocksGoBeforeKeptOnesAndOfThoseTheOldest) {
  block_pool blocks(3);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 3; ++i) held.push_back(*blocks.take());
  blocks.keep(held[0], content_of(0));
  blocks.keep(held[1], content_of(1));
  blocks.give_back(held[1]);
  blocks.give_back(held[0]);
  blocks.give_back(held[2]);
  EXPECT_EQ(blocks.take(), held[2]) << "it holds nothing of use";
  EXPECT_EQ(blocks.take(), held[1]) << "it was used longest ago";
  EXPECT_FALSE(blocks.holds(content_of(1).key, content_of(1).tokens));
  EXPECT_TRUE(blocks.holds(content_of(0).key, content_of(0).tokens));
}

TEST(BlockPool, TheTenantThatKeepsMostGivesUpABlockFirst) {
  block_pool blocks(5);
  std::vector<std::int32_t> held;
  for (int i = 0; i < 5; ++i) held.push_back(*blocks.take());
  blocks.keep(held[0], content_of(0, 1));  // a quiet tenant's, oldest of all
  for (std::uint8_t i = 1; i < 5; ++i) blocks.keep(held[i], content_of(i, 2));
  for (const std::int32_t block : held) blocks.give_back(block);
  for (std::uint8_t i = 1; i < 4; ++i) {
    EXPECT_EQ(blocks.take(), held[i]);
    EXPECT_TRUE(blocks.holds(content_of(0).key, content_of(0).tokens)) << "after " << int{i};
  }
}

TEST(BlockPool, TheSameContentIsNotedOnce) {
  block_pool blocks(2);
  const auto first = blocks.take();
  const auto second = blocks.take();
  blocks.keep(*first, content_of(3));
  blocks.keep(*second, content_of(3));
  blocks.give_back(*second);
  EXPECT_EQ(blocks.kept_blocks(), 0) << "nobody could find it";
  EXPECT_EQ(blocks.take(), second);
}

// Against a plain model: users of each block, and what may be found.
TEST(BlockPool, KeepsItsBooksInAnyOrderOfCalls) {
  for (unsigned seed = 1; seed <= 30; ++seed) {
    std::mt19937 random(seed);
    constexpr std::int64_t size = 23;
    block_pool blocks(size);
    std::vector<std::int32_t> held;  // one entry a user
    std::map<std::int32_t, std::uint8_t> contents;
    for (int turn = 0; turn < 3000; ++turn) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " turn " + std::to_string(turn));
      const std::set<std::int32_t> in_use(held.begin(), held.end());
      ASSERT_EQ(blocks.free_blocks(), size - static_cast<std::int64_t>(in_use.size()));
      const auto number = static_cast<std::uint8_t>(random() % 60);
      const block_content content = content_of(number, number % 3);
      switch (random() % 4) {
        case 0:
          if (const auto block = blocks.take()) {
            ASSERT_FALSE(in_use.contains(*block));
            contents.erase(*block);
            held.push_back(*block);
          } else {
            ASSERT_EQ(in_use.size(), static_cast<std::size_t>(size));
          }
          break;
        case 1:
          if (held.empty()) break;
          std::swap(held[random() % held.size()], held.back());
          blocks.give_back(held.back());
          held.pop_back();
          break;
        case 2:
          if (held.empty() || contents.contains(held.back())) break;
          if (!blocks.holds(content.key, content.tokens)) contents[held.back()] = number;
          blocks.keep(held.back(), content);
          break;
        default:
          if (const auto block = blocks.share(content.key, content.tokens)) {
            ASSERT_EQ(contents.at(*block), number);
            held.push_back(*block);
          }
      }
    }
  }
}

TEST(BlockPoolDeathTest, RefusesABlockThatIsNotTaken) {
  block_pool blocks(3);
  const auto block = blocks.take();
  blocks.give_back(*block);
  EXPECT_DEATH(blocks.give_back(*block), "users");
  EXPECT_DEATH(blocks.give_back(3), "users");
  EXPECT_DEATH(blocks.keep(*block, {}), "users");
}

}  // namespace
}  // namespace troupe::engine
