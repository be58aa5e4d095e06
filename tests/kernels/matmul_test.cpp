#include <gtest/gtest.h>

#include <array>

#include "kernels/matmul/matmul.hpp"
#include "kernels/matmul/matmul_work.hpp"
#include "tests/kernels/matmul_case.hpp"

namespace troupe::kernels {
namespace {

std::vector<float> cells(const matmul_operands& operands, const std::vector<float>& output,
                         std::int64_t row) {
  const auto at = output.begin() + row * (operands.of.outputs + operands.of.output_gap);
  return {at, at + operands.of.outputs};
}

// Holds every cell against the reference; prints the one that is worst for its tolerance.
void expect_near_reference(matmul_operands& operands, instruction_path path, int threads) {
  const std::vector<float> got = operands.multiply(path, threads);
  const std::vector<float> expected = operands.reference();
  const matmul_case& of = operands.of;
  double worst = 0;
  std::string where;
  for (std::int64_t row = 0; row < of.rows; ++row) {
    for (std::int64_t column = 0; column < of.outputs + of.output_gap; ++column) {
      const auto cell = static_cast<std::size_t>(row * (of.outputs + of.output_gap) + column);
      if (column >= of.outputs) {
        ASSERT_EQ(got[cell], matmul_operands::guard) << "wrote beside row " << row;
        continue;
      }
      const double error = std::abs(static_cast<double>(got[cell]) - expected[cell]);
      // Exact data must be equal; a NaN must not slip through a comparison.
      const double allowed = of.integers ? 0.0 : operands.tolerance(row, column);
      const double share = error <= allowed ? error / std::max(allowed, 1e-300)
                                            : std::numeric_limits<double>::infinity();
      if (share < worst || share == 0) continue;
      worst = share;
      where = "row " + std::to_string(row) + " output " + std::to_string(column) + ": " +
              std::to_string(got[cell]) + " for " + std::to_string(expected[cell]) + ", allowed " +
              std::to_string(allowed);
    }
  }
  EXPECT_LE(worst, 1.0) << to_text(of) << " on " << to_string(path) << ": " << where;
}

std::vector<matmul_case> shapes(dtype type, quantisation kind) {
  const std::vector<std::vector<std::int64_t>> grids{{1},
                                                     {2},
                                                     {31},
                                                     {32},
                                                     {33},
                                                     {64},
                                                     {1000},
                                                     {16, 48},
                                                     {0, 33},
                                                     {33, 33},
                                                     {32, 96, 96, 160},
                                                     {7, 8, 40, 41},
                                                     {0, 0, 32, 32, 64, 96, 128, 160},
                                                     {3, 36, 100, 101, 133, 133, 200, 207}};
  std::vector<matmul_case> all;
  std::uint32_t seed = 1;
  for (const auto& run_ends : grids) {
    for (const std::int64_t rows : {1, 2, 5, 6, 7, 13, 16, 17, 31, 33, 48, 49}) {
      for (const std::int64_t outputs : {1, 15, 16, 17, 47, 64, 65, 130}) {
        if ((rows + outputs + static_cast<std::int64_t>(run_ends.size())) % 3 != 0) continue;
        all.push_back({.type = type,
                       .kind = kind,
                       .rows = rows,
                       .outputs = outputs,
                       .run_ends = run_ends,
                       .bias = seed % 2 == 0,
                       .input_gap = seed % 3 == 0 ? 5 : 0,
                       .output_gap = seed % 5 == 0 ? 3 : 0,
                       .seed = seed});
        ++seed;
      }
    }
  }
  return all;
}

using path_case = std::tuple<instruction_path, dtype, quantisation>;

class MatmulOnPath : public testing::TestWithParam<path_case> {
 protected:
  [[nodiscard]] static instruction_path path() { return std::get<0>(GetParam()); }
  [[nodiscard]] static dtype type() { return std::get<1>(GetParam()); }
  [[nodiscard]] static quantisation kind() { return std::get<2>(GetParam()); }
};

constexpr std::array integer_kinds{quantisation::int8_runs, quantisation::int4_groups};

std::vector<path_case> all_paths() {
  std::vector<path_case> all;
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    for (const instruction_path path : supported_paths(type)) {
      all.emplace_back(path, type, quantisation::none);
      if (type != dtype::bfloat16) continue;
      for (const quantisation kind : integer_kinds) all.emplace_back(path, type, kind);
    }
  }
  return all;
}

std::string name_of(const path_case& made) {
  const quantisation kind = std::get<2>(made);
  return std::string(to_string(std::get<0>(made))) + "_" +
         (kind == quantisation::none        ? std::string(to_string(std::get<1>(made)))
          : kind == quantisation::int8_runs ? "int8"
                                            : "int4");
}

INSTANTIATE_TEST_SUITE_P(EveryPath, MatmulOnPath, testing::ValuesIn(all_paths()),
                         [](const auto& made) { return name_of(made.param); });

// Rows of several slabs, inputs of several panels, and the longest run of all.
void expect_large_integers(instruction_path path, quantisation kind) {
  for (const auto& [rows, outputs, ends] :
       std::vector<std::tuple<std::int64_t, std::int64_t, std::vector<std::int64_t>>>{
           {40, 210, {3100}}, {523, 70, {512, 1037}}, {3, 17, {131072}}}) {
    matmul_operands operands({.kind = kind,
                              .rows = rows,
                              .outputs = outputs,
                              .run_ends = ends,
                              .bias = true,
                              .seed = 12});
    EXPECT_EQ(operands.multiply(path, 2), operands.reference()) << to_text(operands.of);
  }
}

TEST_P(MatmulOnPath, StaysWithinTheRoundingOfItsAdditions) {
  for (const matmul_case& of : shapes(type(), kind())) {
    matmul_operands operands(of);
    expect_near_reference(operands, path(), 2);
  }
}

TEST_P(MatmulOnPath, IsExactWhereEverySumIs) {
  for (matmul_case of : shapes(type(), kind())) {
    of.integers = true;
    matmul_operands operands(of);
    expect_near_reference(operands, path(), 1);
  }
}

TEST_P(MatmulOnPath, IsExactOnMatricesLargerThanTheCaches) {
  if (is_integer(kind())) return expect_large_integers(path(), kind());
  // 520 rows are two slabs; 3100 inputs several panels and chunks of rows.
  for (const auto& run_ends : std::vector<std::vector<std::int64_t>>{{3100}, {1024, 2048}}) {
    for (const std::int64_t rows : {1, 40, 520}) {
      matmul_operands operands({.type = type(),
                                .kind = kind(),
                                .rows = rows,
                                .outputs = 1050,
                                .run_ends = run_ends,
                                .bias = true,
                                .integers = true,
                                .seed = 7});
      // The reference in double would take a minute here; whole numbers allow any order.
      const std::vector<float> got = operands.multiply(path(), 2);
      std::int64_t wrong = 0;
      for (std::int64_t row = 0; row < rows; row += 37) {
        for (std::int64_t output = 0; output < 1050; output += 29) {
          float sum = operands.bias[static_cast<std::size_t>(output)];
          for (std::int64_t i = 0; i < operands.of.inputs(); ++i) {
            sum += operands.input_at(row, i) * operands.weight_at(output, i);
          }
          if (got[static_cast<std::size_t>(row * 1050 + output)] != sum) ++wrong;
        }
      }
      EXPECT_EQ(wrong, 0) << to_text(operands.of);
    }
  }
}

TEST_P(MatmulOnPath, GivesARowTheSameBitsInEveryBatch) {
  for (const auto& run_ends : std::vector<std::vector<std::int64_t>>{{700}, {256, 512}, {31, 99}}) {
    matmul_operands batch({.type = type(),
                           .kind = kind(),
                           .rows = 65,
                           .outputs = 70,
                           .run_ends = run_ends,
                           .bias = true,
                           .seed = 3});
    const std::vector<float> all = batch.multiply(path(), 1);
    const tensor_view input = batch.input_view();
    thread_pool pool({.threads = 1});
    for (const std::int64_t rows : {1, 2, 3, 6, 16, 17, 33, 64}) {
      for (std::int64_t first = 0; first + rows <= 65; first += rows) {
        std::vector<float> part(static_cast<std::size_t>(rows * 70));
        matmul(path(), pool,
               {.input = row_slice(input, first, rows),
                .weights = &batch.packed,
                .bias = batch.bias,
                .output = matrix_view(part.data(), rows, 70)});
        ASSERT_EQ(0, std::memcmp(part.data(), all.data() + first * 70, part.size() * 4))
            << to_text(batch.of) << ": rows " << first << " to " << first + rows;
      }
    }
  }
}

TEST_P(MatmulOnPath, GivesTheSameBitsWithAnyNumberOfThreads) {
  for (const std::int64_t rows : {1, 17, 600}) {
    matmul_operands operands({.type = type(),
                              .kind = kind(),
                              .rows = rows,
                              .outputs = 300,
                              .run_ends = {100, 420},
                              .seed = 4});
    const std::vector<float> alone = operands.multiply(path(), 1);
    for (const int threads : {2, 3, 5}) {
      EXPECT_EQ(alone, operands.multiply(path(), threads)) << rows << " rows, " << threads;
    }
  }
}

TEST_P(MatmulOnPath, GivesAnOutputTheSameBitsInEverySlice) {
  matmul_operands whole(
      {.type = type(), .kind = kind(), .rows = 19, .outputs = 150, .run_ends = {333}, .seed = 5});
  const std::vector<float> all = whole.multiply(path(), 1);
  thread_pool pool({.threads = 2});
  for (const auto& [first, count] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 1}, {1, 16}, {5, 33}, {64, 64}, {100, 50}, {149, 1}}) {
    const packed_tensor slice = whole.pack(first, count, {333});
    std::vector<float> part(static_cast<std::size_t>(19 * count));
    matmul(path(), pool,
           {.input = whole.input_view(),
            .weights = &slice,
            .bias = {},
            .output = matrix_view(part.data(), 19, count)});
    for (std::int64_t row = 0; row < 19; ++row) {
      ASSERT_EQ(0, std::memcmp(part.data() + row * count, all.data() + row * 150 + first,
                               static_cast<std::size_t>(count) * 4))
          << "outputs from " << first << ", row " << row;
    }
  }
}

// What ranks do: each multiplies its runs, the sums meet in the tree.
TEST_P(MatmulOnPath, EqualsTheTreeOverItsRuns) {
  const std::vector<std::int64_t> ends{40, 40, 104, 200, 201, 233, 233, 300};
  for (const std::int64_t rows : {1, 20}) {
    matmul_operands operands({.type = type(),
                              .kind = kind(),
                              .rows = rows,
                              .outputs = 33,
                              .run_ends = ends,
                              .bias = false,
                              .seed = 6});
    const std::vector<float> whole = operands.multiply(path(), 2);
    std::vector<std::vector<float>> sums;
    std::int64_t begin = 0;
    for (const std::int64_t end : ends) {
      // One run alone: a column slice of the input by the same columns of the weights.
      matmul_operands run({.type = type(),
                           .kind = kind(),
                           .rows = rows,
                           .outputs = 33,
                           .run_ends = {end - begin},
                           .seed = 6});
      const std::size_t bytes = size_of(type());
      for (std::int64_t output = 0; output < 33; ++output) {
        std::copy_n(operands.weights.data() + (output * 300 + begin) * std::int64_t(bytes),
                    (end - begin) * std::int64_t(bytes),
                    run.weights.data() + output * (end - begin) * std::int64_t(bytes));
      }
      run.packed = run.pack(0, 33, {end - begin});
      std::vector<float> sum(static_cast<std::size_t>(rows * 33));
      thread_pool pool({.threads = 1});
      matmul(path(), pool,
             {.input = column_slice(operands.input_view(), begin, end - begin),
              .weights = &run.packed,
              .bias = {},
              .output = matrix_view(sum.data(), rows, 33)});
      sums.push_back(std::move(sum));
      begin = end;
    }
    for (std::size_t cell = 0; cell < whole.size(); ++cell) {
      const auto at = [&](std::size_t run) { return sums[run][cell]; };
      const float tree = ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
      ASSERT_EQ(std::bit_cast<std::uint32_t>(whole[cell]), std::bit_cast<std::uint32_t>(tree))
          << "cell " << cell;
    }
  }
}

TEST_P(MatmulOnPath, KeepsANanWithinItsRow) {
  matmul_operands operands(
      {.type = type(), .kind = kind(), .rows = 18, .outputs = 20, .run_ends = {45}, .seed = 8});
  const std::vector<float> before = operands.multiply(path(), 1);
  const std::size_t bytes = size_of(type());
  std::memset(operands.input.data() + 7 * 45 * bytes + 44 * bytes, 0xFF, bytes);
  const std::vector<float> after = operands.multiply(path(), 1);
  for (std::int64_t row = 0; row < 18; ++row) {
    for (const float value : cells(operands, after, row)) EXPECT_EQ(std::isnan(value), row == 7);
    if (row != 7) {
      EXPECT_EQ(cells(operands, before, row), cells(operands, after, row));
    }
  }
}

TEST_P(MatmulOnPath, TakesEmptyOperands) {
  for (const auto& [rows, outputs, inputs] :
       std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>{
           {0, 20, 32}, {3, 0, 32}, {3, 20, 0}, {0, 0, 0}}) {
    matmul_operands operands({.type = type(),
                              .kind = kind(),
                              .rows = rows,
                              .outputs = outputs,
                              .run_ends = {inputs},
                              .bias = true,
                              .seed = 9});
    expect_near_reference(operands, path(), 2);
  }
}

TEST(Matmul, IntegersAtTheirExtremesNeitherWrapNorSaturate) {
  for (const quantisation kind : integer_kinds) {
    for (const instruction_path path : supported_paths(dtype::bfloat16)) {
      for (const int sign : {1, -1}) {
        matmul_operands operands({.kind = kind, .rows = 2, .outputs = 16, .run_ends = {131072}});
        const std::uint16_t one = 0x3F80;
        const auto other = static_cast<std::uint16_t>(sign > 0 ? one : one | 0x8000);
        for (std::size_t i = 0; i < operands.input.size(); i += 2) {
          std::memcpy(operands.input.data() + i, &other, 2);
        }
        for (std::size_t i = 0; i < operands.weights.size(); i += 2) {
          std::memcpy(operands.weights.data() + i, &one, 2);
        }
        operands.packed = operands.pack(0, 16, {131072});
        for (const float cell : operands.multiply(path, 1)) {
          EXPECT_NEAR(cell, static_cast<float>(sign) * 131072.0F, 1.0F)
              << to_string(path) << ", kind " << static_cast<int>(kind);
        }
      }
    }
  }
}

TEST(Matmul, IntegersHaveTheSameBitsOnEveryPath) {
  for (const quantisation kind : integer_kinds) {
    matmul_operands operands(
        {.kind = kind, .rows = 21, .outputs = 100, .run_ends = {640, 1234}, .seed = 13});
    const std::vector<float> expected = operands.multiply(instruction_path::avx2, 1);
    for (const instruction_path path : supported_paths(dtype::bfloat16)) {
      EXPECT_EQ(operands.multiply(path, 2), expected) << to_string(path);
    }
  }
}

// Which of them a path takes depends on the CPU; each that runs here is held against the others.
TEST(Matmul, EveryPanelOfIntegersHasTheSameSums) {
  constexpr std::int64_t rows = 13;
  constexpr std::int64_t steps = 3;
  for (const quantisation kind : integer_kinds) {
    const bool int8 = kind == quantisation::int8_runs;
    matmul_operands operands(
        {.kind = kind, .rows = rows, .outputs = 64, .run_ends = {steps * 64}, .seed = 14});
    std::vector<std::int8_t> input(rows * steps * 64);
    std::vector<std::int32_t> offsets(rows * steps * 2, 12345);
    std::mt19937 generator(15);
    for (auto& code : input)
      code = static_cast<std::int8_t>(static_cast<int>(generator() % 255) - 127);
    const auto sums_of = [&](const matmul_detail::panel_kernel& panels) {
      std::vector<float> sums(rows * 64);
      matmul_detail::panel work{.input = reinterpret_cast<const std::byte*>(input.data()),
                                .input_row_bytes = steps * 64,
                                .input_step_bytes = 64,
                                .input_tile_bytes = 16 * steps * 64,
                                .rows = rows,
                                .weights = operands.packed.block(0),
                                .block_bytes = operands.packed.block_bytes(),
                                .blocks = 4,
                                .next_weights = operands.packed.block(0),
                                .steps = steps,
                                .group_offsets = int8 ? nullptr : offsets.data(),
                                .group_offsets_stride = steps * 2,
                                .sums = sums.data(),
                                .sums_stride = 64,
                                .target = sums.data(),
                                .target_stride = 64};
      panels.run(work);
      work.resume = true;
      panels.run(work);
      return sums;
    };
    std::vector<matmul_detail::panel_kernel> others;
    if (has_avx_vnni()) others.push_back(matmul_detail::avx_vnni_panel(kind));
    if (has_avx512_vnni()) {
      others.push_back(int8 ? matmul_detail::avx512_int8_panel()
                            : matmul_detail::avx512_int4_panel());
    }
    const auto paths = supported_paths(dtype::bfloat16);
    if (paths.empty()) GTEST_SKIP() << "needs AVX2";
    if (int8 && paths.front() == instruction_path::amx_bf16 && has_amx_int8()) {
      others.push_back(matmul_detail::amx_int8_panel());
    }
    const std::vector<float> expected = sums_of(matmul_detail::avx2_integer_panel(kind));
    for (const auto& other : others) {
      EXPECT_EQ(0, std::memcmp(sums_of(other).data(), expected.data(), expected.size() * 4));
    }
  }
}

TEST(Matmul, FusedMultiplyAddsAreTheSameOnAvx2AndAvx512) {
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    const std::vector<instruction_path> able = supported_paths(type);
    const auto can = [&](instruction_path path) {
      return std::find(able.begin(), able.end(), path) != able.end();
    };
    if (!can(instruction_path::avx512)) GTEST_SKIP() << "needs AVX-512";
    matmul_operands operands(
        {.type = type, .rows = 9, .outputs = 100, .run_ends = {1234}, .seed = 10});
    EXPECT_EQ(operands.multiply(instruction_path::avx2, 1),
              operands.multiply(instruction_path::avx512, 2));
  }
}

TEST(Matmul, ScratchServesCallsOfEverySizeInTurn) {
  thread_pool pool({.threads = 2});
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    for (const instruction_path path : supported_paths(type)) {
      matmul_scratch scratch;
      for (const std::int64_t rows : {3, 200, 1, 40}) {
        matmul_operands operands({.type = type,
                                  .rows = rows,
                                  .outputs = 48,
                                  .run_ends = {17, 90},
                                  .integers = true,
                                  .seed = 11});
        std::vector<float> output(static_cast<std::size_t>(rows * 48));
        matmul(path, pool,
               {.input = operands.input_view(),
                .weights = &operands.packed,
                .bias = {},
                .output = matrix_view(output.data(), rows, 48)},
               scratch);
        EXPECT_EQ(output, operands.reference()) << to_string(path) << ", " << rows << " rows";
      }
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
