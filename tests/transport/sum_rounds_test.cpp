#include "transport/sum_rounds.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "transport/tree_sum.hpp"

namespace troupe::transport {
namespace {

constexpr std::size_t lengths[] = {0, 1, 2, 3, 7, 8, 9, 64, 1001};

std::vector<std::vector<float>> values_of(int ranks, std::size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> draw(0.0F, 1000.0F);
  std::vector<std::vector<float>> all(static_cast<std::size_t>(ranks));
  for (auto& one : all) {
    for (std::size_t i = 0; i < count; ++i) one.push_back(draw(random));
  }
  return all;
}

std::vector<float> tree_of(const std::vector<std::vector<float>>& values) {
  std::vector<const float*> sources;
  for (const auto& one : values) sources.push_back(one.data());
  std::vector<float> sum(values[0].size());
  tree_sum(sources, sum);
  return sum;
}

// All ranks in step: what each gives in a round is what it held before the round.
void carry_out(std::vector<std::vector<float>>& values,
               const std::vector<std::vector<sum_round>>& schedule) {
  for (std::size_t at = 0; at < schedule[0].size(); ++at) {
    const auto before = values;
    for (std::size_t rank = 0; rank < values.size(); ++rank) {
      const sum_round& mine = schedule[rank][at];
      const auto partner = static_cast<std::size_t>(mine.partner);
      const sum_round& theirs = schedule[partner][at];
      ASSERT_EQ(theirs.partner, static_cast<int>(rank));
      ASSERT_EQ(theirs.number, mine.number);
      ASSERT_EQ(theirs.given, mine.taken);
      for (std::size_t i = 0; i < mine.taken.count; ++i) {
        const float came = before[partner][theirs.given.first + i];
        float& here = values[rank][mine.taken.first + i];
        here = mine.adds ? here + came : came;
      }
    }
  }
}

bool same_bits(const float* a, const float* b, std::size_t count) {
  return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}

TEST(SumRounds, EndInTheTreeOnEveryRank) {
  for (const int ranks : {1, 2, 4, 8, 16}) {
    for (const std::size_t count : lengths) {
      for (const bool halves : {false, true}) {
        auto values = values_of(ranks, count);
        const std::vector<float> wanted = tree_of(values);
        std::vector<std::vector<sum_round>> schedule;
        for (int rank = 0; rank < ranks; ++rank) {
          schedule.push_back(all_reduce_rounds({.rank = rank, .size = ranks}, count, halves));
        }
        carry_out(values, schedule);
        for (const auto& one : values) {
          EXPECT_TRUE(same_bits(one.data(), wanted.data(), count))
              << ranks << " ranks, " << count << " floats, halves " << halves;
        }
      }
    }
  }
}

TEST(SumRounds, HalvingLeavesEachRankItsPieceOfTheTree) {
  for (const int ranks : {1, 2, 4, 8}) {
    for (const std::size_t count : lengths) {
      auto values = values_of(ranks, count);
      const std::vector<float> wanted = tree_of(values);
      std::vector<std::vector<sum_round>> schedule;
      for (int rank = 0; rank < ranks; ++rank) {
        schedule.push_back(halving_rounds({.rank = rank, .size = ranks}, count));
      }
      carry_out(values, schedule);
      std::size_t covered = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const float_range piece = piece_of({.rank = rank, .size = ranks}, count);
        EXPECT_TRUE(same_bits(values[static_cast<std::size_t>(rank)].data() + piece.first,
                              wanted.data() + piece.first, piece.count));
        covered += piece.count;
      }
      EXPECT_EQ(covered, count);
    }
  }
}

TEST(SumRounds, BeginWithTheNeighbour) {
  const auto small = all_reduce_rounds({.rank = 5, .size = 8}, 9, false);
  ASSERT_EQ(small.size(), 3U);
  EXPECT_EQ(small[0].partner, 4);
  EXPECT_EQ(small[1].partner, 7);
  EXPECT_EQ(small[2].partner, 1);
  EXPECT_EQ(small[2].given, (float_range{0, 9}));
  const auto large = all_reduce_rounds({.rank = 5, .size = 8}, 9, true);
  ASSERT_EQ(large.size(), 6U);
  EXPECT_EQ(large[0].partner, 4);
  EXPECT_EQ(large[0].given, (float_range{0, 4}));  // 5 is odd: it keeps the second half
  EXPECT_EQ(large[0].taken, (float_range{4, 5}));
  EXPECT_EQ(large[5].partner, 4);
  EXPECT_EQ(large[5].taken, (float_range{0, 4}));
  EXPECT_FALSE(large[5].adds);
}

TEST(SumRounds, PiecesOfEqualPartsAreNumberedByReversedBits) {
  for (int rank = 0; rank < 8; ++rank) {
    const group_place place{.rank = rank, .size = 8};
    EXPECT_EQ(piece_of(place, 40).first, static_cast<std::size_t>(piece_number(place)) * 5);
    EXPECT_EQ(piece_of(place, 40).count, 5U);
  }
}

}  // namespace
}  // namespace troupe::transport
