#include "transport/tree_sum.hpp"

#include "tests/transport/group_runner.hpp"

#include <gtest/gtest.h>

namespace troupe::transport::testing {
namespace {

TEST(TreeSum, EqualsTheDefinitionAtEverySizeAndLength) {
  for (const int ranks : {1, 2, 4, 8, 16, 32, 64}) {
    for (const std::size_t count : {0UL, 1UL, 7UL, 1023UL, 1024UL, 1025UL, 40001UL}) {
      std::vector<std::vector<float>> inputs;
      std::vector<const float*> sources;
      for (int rank = 0; rank < ranks; ++rank) {
        inputs.push_back(adversarial(11, rank, count));
        sources.push_back(inputs.back().data());
      }
      std::vector<float> sum(count, 42.0F);
      tree_sum(sources, sum);
      EXPECT_EQ(differing_bits(sum, reference_sum(11, ranks, count)), 0U)
          << ranks << " ranks, " << count << " values";
    }
  }
}

TEST(TreeSum, KeepsNegativeZeroAndDenormals) {
  const std::vector<float> a = {-0.0F, 1e-42F, -0.0F, 1e-45F};
  const std::vector<float> b = {-0.0F, 1e-42F, 0.0F, -1e-45F};
  const std::vector<float> expected = {-0.0F, 1e-42F + 1e-42F, 0.0F, 0.0F};
  std::vector<float> sum(4);
  tree_sum(std::vector<const float*>{a.data(), b.data()}, sum);
  EXPECT_EQ(differing_bits(sum, expected), 0U);
  EXPECT_GT(sum[1], 0.0F);
}

// Without this the tests of the sums could pass with any order.
TEST(TreeSum, TestValuesTellTheTreeFromOtherOrders) {
  constexpr std::size_t count = 4000;
  std::vector<std::vector<float>> inputs;
  for (int rank = 0; rank < 8; ++rank) inputs.push_back(adversarial(5, rank, count));
  const std::vector<float> tree = reference_sum(5, 8, count);
  std::vector<float> in_order(count);
  std::vector<float> far_first(count);
  for (std::size_t i = 0; i < count; ++i) {
    in_order[i] = inputs[0][i];
    for (std::size_t r = 1; r < 8; ++r) in_order[i] += inputs[r][i];
    const auto pair = [&](std::size_t r) { return inputs[r][i] + inputs[r + 4][i]; };
    far_first[i] = (pair(0) + pair(2)) + (pair(1) + pair(3));
  }
  EXPECT_GT(differing_bits(tree, in_order), count / 4);
  EXPECT_GT(differing_bits(tree, far_first), count / 4);
}

}  // namespace
}  // namespace troupe::transport::testing
