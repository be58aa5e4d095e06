#include "kernels/embed/embed.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace troupe::kernels {
namespace {

TEST(Embed, CopiesTheRowsOfItsIds) {
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    for (const std::int64_t columns : {1, 32, 77, 256}) {
      const std::int64_t rows = 45;
      // Whole numbers up to 256 are bfloat16 as they are.
      std::vector<float> table(static_cast<std::size_t>(rows * columns));
      for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i * 37 % 257);
      packed_tensor packed =
          *packed_tensor::allocate({.outputs = rows, .run_ends = {columns}, .type = type});
      packed.pack({.rows = std::as_bytes(std::span(table)),
                   .source = source_dtype::float32,
                   .first_output = 0,
                   .outputs = rows});
      const std::vector<std::int32_t> ids{44, 0, 17, 17, 16, 3};
      for (const int threads : {1, 3}) {
        thread_pool pool({.threads = threads});
        const std::int64_t stride = columns + 3;
        std::vector<float> output(ids.size() * static_cast<std::size_t>(stride), -1.0F);
        tensor_view view =
            matrix_view(output.data(), static_cast<std::int64_t>(ids.size()), columns);
        view.row_stride = stride;
        embed(pool, {.table = &packed, .local_ids = ids, .output = view});
        for (std::size_t row = 0; row < ids.size(); ++row) {
          for (std::int64_t c = 0; c < stride; ++c) {
            const float expected =
                c < columns ? table[static_cast<std::size_t>(ids[row] * columns + c)] : -1.0F;
            ASSERT_EQ(output[row * static_cast<std::size_t>(stride) + static_cast<std::size_t>(c)],
                      expected)
                << "row " << row << " column " << c;
          }
        }
      }
    }
  }
}

TEST(Embed, TakesNoIds) {
  packed_tensor packed =
      *packed_tensor::allocate({.outputs = 0, .run_ends = {8}, .type = dtype::bfloat16});
  thread_pool pool({.threads = 2});
  float untouched = 1.0F;
  embed(pool, {.table = &packed, .local_ids = {}, .output = matrix_view(&untouched, 0, 8)});
  EXPECT_EQ(untouched, 1.0F);
}

}  // namespace
}  // namespace troupe::kernels
