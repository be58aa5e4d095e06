#include "kernels/gather_rows/gather_rows.hpp"

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

void expect_reference_bits(std::int64_t rows, std::int64_t columns, std::size_t count,
                           int threads) {
  thread_pool pool({.threads = threads});
  padded_matrix<> input(rows, columns, 4);
  input.fill(7);
  generator random(8);
  std::vector<std::int32_t> chosen(count);
  for (auto& row : chosen)
    row = static_cast<std::int32_t>(random.bits() % static_cast<std::uint64_t>(rows));
  padded_matrix<> output(static_cast<std::int64_t>(count), columns, 1);
  padded_matrix<> expected = output;
  gather_rows(instruction_path::avx2, pool,
              {.input = input.view(), .rows = chosen, .output = output.view()});
  gather_rows_reference({.input = input.view(), .rows = chosen, .output = expected.view()});
  for (std::int64_t i = 0; i < output.rows(); ++i) {
    ASSERT_TRUE(same_bits(output.cells(i, 0, columns), expected.cells(i, 0, columns)))
        << "output row " << i << " of " << count << ", " << columns << " columns";
  }
  output.expect_padding_untouched();
}

TEST(GatherRows, CopiesChosenRows) {
  expect_reference_bits(5, 1, 0, 1);
  expect_reference_bits(5, 1, 3, 1);
  expect_reference_bits(9, 33, 20, 1);  // some rows more than once
  expect_reference_bits(300, 1027, 700, 3);
}

TEST(GatherRowsDeathTest, RefusesRowOutsideTheInput) {
  thread_pool pool({.threads = 1});
  padded_matrix<> input(4, 8);
  padded_matrix<> output(1, 8);
  for (const std::int32_t outside : {-1, 4}) {
    const std::vector<std::int32_t> chosen{outside};
    EXPECT_DEATH(gather_rows(instruction_path::avx2, pool,
                             {.input = input.view(), .rows = chosen, .output = output.view()}),
                 "row");
  }
}

}  // namespace
}  // namespace troupe::kernels
