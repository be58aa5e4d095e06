#include "kernels/add/add.hpp"

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

struct add_case {
  std::int64_t rows;
  std::int64_t columns;
};
constexpr add_case add_cases[] = {{0, 7}, {1, 0}, {1, 1}, {3, 15}, {2, 16}, {5, 37}, {700, 1031}};

void expect_reference_bits(instruction_path path, add_case shape, bool biased, int threads) {
  thread_pool pool({.threads = threads});
  padded_matrix<> target(shape.rows, shape.columns, 5);
  padded_matrix<> addend(shape.rows, shape.columns, 2);
  padded_matrix<> bias(1, shape.columns, 0);
  target.fill(1);
  addend.fill(2);
  bias.fill(3);
  padded_matrix<> expected = target;
  std::span<const float> bias_span;
  if (biased && shape.columns > 0) {
    bias_span = {&bias.at(0, 0), static_cast<std::size_t>(shape.columns)};
  }
  add(path, pool, {.target = target.view(), .addend = addend.view(), .bias = bias_span});
  add_reference({.target = expected.view(), .addend = addend.view(), .bias = bias_span});
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    // Two additions, each rounded once: nothing to tolerate.
    ASSERT_TRUE(
        same_bits(target.cells(row, 0, shape.columns), expected.cells(row, 0, shape.columns)))
        << to_string(path) << " row " << row << " of " << shape.rows << " x " << shape.columns;
  }
  target.expect_padding_untouched();
  addend.expect_padding_untouched();
}

TEST(Add, EqualsReferenceBitForBitOnEveryPath) {
  for (const instruction_path path : paths()) {
    for (const add_case shape : add_cases) {
      for (const bool biased : {false, true}) expect_reference_bits(path, shape, biased, 1);
      expect_reference_bits(path, shape, true, 3);
    }
  }
}

TEST(Add, DoublesWhenTargetIsAddend) {
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 1});
    padded_matrix<> x(2, 19);
    x.fill(4);
    padded_matrix<> before = x;
    add(path, pool, {.target = x.view(), .addend = x.view(), .bias = {}});
    for (std::int64_t i = 0; i < 19; ++i) ASSERT_EQ(x.at(1, i), 2.0F * before.at(1, i));
  }
}

TEST(AddDeathTest, RefusesBiasOfAnotherWidth) {
  thread_pool pool({.threads = 1});
  padded_matrix<> x(2, 19);
  const std::vector<float> bias(18);
  EXPECT_DEATH(
      add(instruction_path::avx2, pool, {.target = x.view(), .addend = x.view(), .bias = bias}),
      "bias");
}

}  // namespace
}  // namespace troupe::kernels
