#include "kernels/rms_norm/rms_norm.hpp"

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

struct norm_case {
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t size;
};

[[nodiscard]] std::vector<float> weights(std::int64_t size) {
  generator random(41);
  std::vector<float> result;
  for (std::int64_t i = 0; i < size; ++i) result.push_back(static_cast<float>(random.normal()));
  return result;
}

[[nodiscard]] tensor_view shaped(tensor_view view, const norm_case& shape) {
  return shape.heads == 1 ? view : as_heads(view, shape.size);
}

// Relative error of one output, in epsilons (u). The sum of n squares, none negative, in chains of
// ceil(n / 32) multiply-adds at the narrowest and log2(32) = 5 tree levels: at most n / 32 + 6 u.
// Mean (1) and epsilon's addition (1); the root halves all that, and adds its own (1), the
// reciprocal (1), two products (2), the reference's rounding (1).
[[nodiscard]] double relative_bound(std::int64_t size) {
  const double sum = static_cast<double>(size) / 32.0 + 6.0;
  return ((sum + 2.0) / 2.0 + 5.0) * float_epsilon;
}

template <class T>
void expect_near_reference(instruction_path path, const norm_case& shape, double scale,
                           int threads) {
  thread_pool pool({.threads = threads});
  const std::vector<float> weight = weights(shape.size);
  padded_matrix<> x(shape.rows, shape.heads * shape.size, 7);
  x.fill(42, scale);
  padded_matrix<T> output(shape.rows, shape.heads * shape.size, 2);
  padded_matrix<> expected(shape.rows, shape.heads * shape.size, 1);
  rms_norm(path, pool,
           {.input = shaped(x.view(), shape),
            .weight = weight,
            .epsilon = 1e-6F,
            .output = shaped(output.view(), shape)});
  rms_norm_reference({.input = shaped(x.view(), shape),
                      .weight = weight,
                      .epsilon = 1e-6F,
                      .output = shaped(expected.view(), shape)});
  const double rounding = sizeof(T) == 2 ? bfloat16_epsilon : 0.0;
  const auto tolerance = [&](std::int64_t, std::int64_t, double want) {
    return std::fabs(want) * (relative_bound(shape.size) + rounding) + 1e-37;
  };
  expect_near(output, expected, tolerance,
              std::string(to_string(path)) + " size " + std::to_string(shape.size));
  output.expect_padding_untouched();
}

TEST(RmsNorm, StaysWithinDerivedBoundOfReference) {
  for (const instruction_path path : paths()) {
    for (const norm_case& shape : {norm_case{0, 1, 8}, norm_case{3, 1, 1}, norm_case{2, 1, 15},
                                   norm_case{2, 1, 65}, norm_case{4, 3, 37}, norm_case{5, 8, 128},
                                   norm_case{40, 1, 1024}, norm_case{3, 1, 16'411}}) {
      for (const double scale : {1e-4, 1.0, 300.0}) {
        expect_near_reference<float>(path, shape, scale, 1);
        expect_near_reference<std::uint16_t>(path, shape, scale, 3);
      }
    }
  }
}

TEST(RmsNorm, GivesARowTheSameBitsAloneInABatchAndInPlace) {
  const std::vector<float> weight = weights(101);
  for (const instruction_path path : paths()) {
    for (const std::int64_t rows : {17, 640}) {
      for (const int threads : {1, 2, 3}) {
        thread_pool pool({.threads = threads});
        padded_matrix<> x(rows, 101, 3);
        x.fill(43);
        padded_matrix<> batch(rows, 101, 0);
        rms_norm(path, pool,
                 {.input = x.view(), .weight = weight, .epsilon = 1e-5F, .output = batch.view()});
        padded_matrix<> in_place = x;
        rms_norm(path, pool,
                 {.input = in_place.view(),
                  .weight = weight,
                  .epsilon = 1e-5F,
                  .output = in_place.view()});
        for (std::int64_t row = 0; row < rows; ++row) {
          padded_matrix<> alone(1, 101, 11);
          rms_norm(path, pool,
                   {.input = row_slice(x.view(), row, 1),
                    .weight = weight,
                    .epsilon = 1e-5F,
                    .output = alone.view()});
          ASSERT_TRUE(same_bits(alone.cells(0, 0, 101), batch.cells(row, 0, 101)))
              << to_string(path) << " row " << row << " of " << rows << ", threads " << threads;
          ASSERT_TRUE(same_bits(alone.cells(0, 0, 101), in_place.cells(row, 0, 101)))
              << to_string(path) << " in place, row " << row;
        }
      }
    }
  }
}

TEST(RmsNorm, GivesAHeadTheSameBitsInAnyFusedRow) {
  const std::vector<float> weight = weights(72);
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 1});
    padded_matrix<> x(3, 7 * 72);
    x.fill(44);
    padded_matrix<> whole(3, 7 * 72);
    rms_norm(path, pool,
             {.input = as_heads(x.view(), 72),
              .weight = weight,
              .epsilon = 1e-6F,
              .output = as_heads(whole.view(), 72)});
    for (std::int64_t head = 0; head < 7; ++head) {
      padded_matrix<> alone(3, 72);
      rms_norm(path, pool,
               {.input = as_heads(column_slice(x.view(), head * 72, 72), 72),
                .weight = weight,
                .epsilon = 1e-6F,
                .output = as_heads(alone.view(), 72)});
      for (std::int64_t row = 0; row < 3; ++row) {
        ASSERT_TRUE(same_bits(alone.cells(row, 0, 72), whole.cells(row, head * 72, head * 72 + 72)))
            << to_string(path) << " head " << head;
      }
    }
  }
}

TEST(RmsNorm, OfZerosIsZero) {
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 1});
    std::vector<float> x(40, 0.0F);
    const std::vector<float> weight(40, 2.0F);
    rms_norm(path, pool,
             {.input = matrix_view(x.data(), 1, 40),
              .weight = weight,
              .epsilon = 1e-6F,
              .output = matrix_view(x.data(), 1, 40)});
    EXPECT_EQ(x, std::vector<float>(40, 0.0F)) << to_string(path);
  }
}

TEST(RmsNormDeathTest, RefusesWeightOfAnotherSize) {
  thread_pool pool({.threads = 1});
  padded_matrix<> x(1, 64);
  const std::vector<float> weight(32);
  EXPECT_DEATH(rms_norm(instruction_path::avx2, pool,
                        {.input = x.view(), .weight = weight, .output = x.view()}),
               "size");
}

}  // namespace
}  // namespace troupe::kernels
