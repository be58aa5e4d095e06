#include "kernels/rotary/rotary.hpp"

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

struct rotary_case {
  std::int64_t tokens;
  std::int64_t heads;
  std::int64_t head_dim;
};

struct angles {
  explicit angles(const rotary_case& shape) {
    generator random(21);
    for (std::int64_t i = 0; i < shape.tokens * shape.head_dim / 2; ++i) {
      const double angle = 100.0 * random.uniform();
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  std::vector<float> cos;
  std::vector<float> sin;
};

void expect_near_reference(instruction_path path, const rotary_case& shape, int threads) {
  const angles table(shape);
  thread_pool pool({.threads = threads});
  padded_matrix<> x(shape.tokens, shape.heads * shape.head_dim, 6);
  x.fill(22, 3.0);
  padded_matrix<> before = x;
  padded_matrix<> expected = x;
  rotary(path, pool,
         {.heads = as_heads(x.view(), shape.head_dim), .cos = table.cos, .sin = table.sin});
  rotary_reference(
      {.heads = as_heads(expected.view(), shape.head_dim), .cos = table.cos, .sin = table.sin});
  // |a c| is rounded once and the sum once, the reference once: with |c|, |s| <= 1 each rounding is
  // at most epsilon (|a| + |b|).
  const std::int64_t half = shape.head_dim / 2;
  const auto tolerance = [&](std::int64_t row, std::int64_t column, double) {
    const std::int64_t i = column % shape.head_dim;
    const std::int64_t partner = i < half ? column + half : column - half;
    return 3.0 * float_epsilon *
           (std::fabs(before.value(row, column)) + std::fabs(before.value(row, partner)));
  };
  expect_near(x, expected, tolerance, std::string(to_string(path)));
  x.expect_padding_untouched();
}

TEST(Rotary, StaysWithinRoundingOfReference) {
  for (const instruction_path path : paths()) {
    for (const rotary_case& shape :
         {rotary_case{0, 2, 8}, rotary_case{1, 1, 2}, rotary_case{3, 2, 6}, rotary_case{7, 3, 64},
          rotary_case{5, 1, 80}, rotary_case{300, 8, 128}}) {
      expect_near_reference(path, shape, 1);
      expect_near_reference(path, shape, 3);
    }
  }
}

TEST(Rotary, GivesARowAndAHeadTheSameBitsAnywhere) {
  const rotary_case shape{17, 5, 44};
  const angles table(shape);
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 2});
    padded_matrix<> x(shape.tokens, shape.heads * shape.head_dim);
    x.fill(23);
    padded_matrix<> whole = x;
    rotary(path, pool, {.heads = as_heads(whole.view(), 44), .cos = table.cos, .sin = table.sin});
    for (std::int64_t token = 0; token < shape.tokens; ++token) {
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        padded_matrix<> alone = x;
        const tensor_view view = column_slice(row_slice(alone.view(), token, 1), head * 44, 44);
        rotary(path, pool,
               {.heads = as_heads(view, 44),
                .cos = std::span(table.cos).subspan(static_cast<std::size_t>(token) * 22, 22),
                .sin = std::span(table.sin).subspan(static_cast<std::size_t>(token) * 22, 22)});
        ASSERT_TRUE(same_bits(alone.cells(token, head * 44, head * 44 + 44),
                              whole.cells(token, head * 44, head * 44 + 44)))
            << to_string(path) << " token " << token << " head " << head;
      }
    }
  }
}

TEST(Rotary, RotatesAQuarterTurnIntoTheOtherHalf) {
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 1});
    std::vector<float> x{1, 2, 3, 4};
    const std::vector<float> cos{0, 0};
    const std::vector<float> sin{1, 1};
    rotary(path, pool, {.heads = as_heads(matrix_view(x.data(), 1, 4), 4), .cos = cos, .sin = sin});
    EXPECT_EQ(x, (std::vector<float>{-3, -4, 1, 2})) << to_string(path);
  }
}

}  // namespace
}  // namespace troupe::kernels
