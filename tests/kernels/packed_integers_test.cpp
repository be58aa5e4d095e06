// Weights rounded to int8 and int4: how near they are, that a row's codes do not depend on what is
// packed beside it, and what becomes of zeros, infinities and NaN.
#include "kernels/packed_integers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/float16.hpp"
#include "kernels/packed_tensor.hpp"

namespace troupe::kernels {
namespace {

constexpr std::array kinds{quantisation::int8_runs, quantisation::int4_groups};

struct matrix {
  std::int64_t outputs = 0;
  std::vector<std::int64_t> run_ends;
  std::vector<float> weights;  // [outputs][inputs]

  [[nodiscard]] std::int64_t inputs() const { return run_ends.back(); }
  [[nodiscard]] std::span<const float> row(std::int64_t output) const {
    return std::span(weights).subspan(static_cast<std::size_t>(output * inputs()),
                                      static_cast<std::size_t>(inputs()));
  }
  [[nodiscard]] packed_tensor allocate(quantisation kind, std::int64_t rows) const {
    auto made = packed_tensor::allocate({.outputs = rows, .run_ends = run_ends, .kind = kind});
    EXPECT_TRUE(made.has_value());
    return std::move(*made);
  }
  // Outputs [first, first + count) as the packed tensor's from `to` on.
  void pack(packed_tensor& into, std::int64_t first, std::int64_t count, std::int64_t to) const {
    into.pack({.rows = std::as_bytes(
                   std::span(weights).subspan(static_cast<std::size_t>(first * inputs()),
                                              static_cast<std::size_t>(count * inputs()))),
               .source = source_dtype::float32,
               .first_output = to,
               .outputs = count});
  }
  [[nodiscard]] packed_tensor packed(quantisation kind) const {
    packed_tensor made = allocate(kind, outputs);
    pack(made, 0, outputs, 0);
    return made;
  }
};

matrix random_matrix(std::int64_t outputs, std::vector<std::int64_t> run_ends, unsigned seed) {
  matrix made{.outputs = outputs, .run_ends = std::move(run_ends), .weights = {}};
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  for (std::int64_t i = 0; i < outputs * made.inputs(); ++i) {
    made.weights.push_back(normal(generator));
  }
  return made;
}

std::vector<float> unpacked(const packed_tensor& from, std::int64_t output) {
  std::vector<float> row(static_cast<std::size_t>(from.inputs()));
  from.unpack_row(output, row);
  return row;
}

// The root of the mean squared error, as a share of the weights' own.
double relative_error(const matrix& of, quantisation kind) {
  const packed_tensor packed = of.packed(kind);
  double error = 0;
  double magnitude = 0;
  for (std::int64_t output = 0; output < of.outputs; ++output) {
    const std::vector<float> found = unpacked(packed, output);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double exact = of.row(output)[i];
      error += (found[i] - exact) * (found[i] - exact);
      magnitude += exact * exact;
    }
  }
  return std::sqrt(error / magnitude);
}

TEST(PackedIntegers, Int8IsTheNearestOf255StepsToTheLargest) {
  const matrix of = random_matrix(37, {70, 70, 133, 198}, 1);
  const packed_tensor packed = of.packed(quantisation::int8_runs);
  for (std::int64_t output = 0; output < of.outputs; ++output) {
    const std::vector<float> found = unpacked(packed, output);
    std::int64_t begin = 0;
    for (const std::int64_t end : of.run_ends) {
      float largest = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        largest = std::max(largest, std::abs(of.row(output)[static_cast<std::size_t>(i)]));
      }
      for (std::int64_t i = begin; i < end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        // Half a step, and what three float32 operations round.
        EXPECT_NEAR(found[at], of.row(output)[at], largest / 127 * (0.5 + 127 * 0x1p-22));
      }
      begin = end;
    }
  }
}

// The error of codes that are the nearest multiples of each group's largest weight / -8.
double natural_int4_error(const matrix& of) {
  double error = 0;
  double magnitude = 0;
  for (std::size_t group = 0; group < of.weights.size(); group += 32) {
    double largest = 0;
    for (std::size_t i = group; i < group + 32; ++i) {
      if (std::abs(of.weights[i]) > std::abs(largest)) largest = of.weights[i];
    }
    for (std::size_t i = group; i < group + 32; ++i) {
      const double step = largest / -8;
      const double code = std::clamp(std::nearbyint(of.weights[i] / step), -8.0, 7.0);
      error += (code * step - of.weights[i]) * (code * step - of.weights[i]);
      magnitude += static_cast<double>(of.weights[i]) * of.weights[i];
    }
  }
  return std::sqrt(error / magnitude);
}

TEST(PackedIntegers, Int4LeavesLessThanTheNaturalStepWould) {
  const matrix of = random_matrix(64, {1024}, 2);
  EXPECT_LT(relative_error(of, quantisation::int4_groups), 0.95 * natural_int4_error(of));
  EXPECT_LT(relative_error(of, quantisation::int8_runs), 0.0085);
}

TEST(PackedIntegers, WholeNumbersOfTheirRangeAreExact) {
  matrix of{.outputs = 16, .run_ends = {64}, .weights = {}};
  for (std::int64_t i = 0; i < 16 * 64; ++i) of.weights.push_back(static_cast<float>(i % 16 - 8));
  EXPECT_EQ(relative_error(of, quantisation::int4_groups), 0.0);
  for (std::int64_t i = 0; i < 16 * 64; ++i) {
    of.weights[static_cast<std::size_t>(i)] = static_cast<float>(i * 13 % 255 - 127) * 0.25F;
  }
  of.weights.front() = 127 * 0.25F;
  for (std::int64_t row = 0; row < 16; ++row)
    of.weights[static_cast<std::size_t>(row * 64)] = 31.75F;
  EXPECT_EQ(relative_error(of, quantisation::int8_runs), 0.0);
}

TEST(PackedIntegers, ARowsCodesDoNotDependOnWhatIsPackedBesideIt) {
  const matrix of = random_matrix(50, {33, 33, 128, 191}, 3);
  for (const quantisation kind : kinds) {
    const packed_tensor whole = of.packed(kind);
    packed_tensor pieces = of.allocate(kind, 50);
    for (const auto& [first, count] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{30, 20}, {0, 1}, {17, 13}, {1, 16}}) {
      of.pack(pieces, first, count, first);
    }
    packed_tensor slice = of.allocate(kind, 9);
    of.pack(slice, 21, 9, 0);
    for (std::int64_t output = 0; output < 50; ++output) {
      EXPECT_EQ(unpacked(whole, output), unpacked(pieces, output)) << "row " << output;
      if (output >= 21 && output < 30) {
        EXPECT_EQ(unpacked(whole, output), unpacked(slice, output - 21));
      }
    }
  }
}

TEST(PackedIntegers, ARunsCodesDoNotDependOnTheRunsBesideIt) {
  const matrix of = random_matrix(20, {32, 100, 100, 160}, 4);
  for (const quantisation kind : kinds) {
    const packed_tensor whole = of.packed(kind);
    matrix run{.outputs = 20, .run_ends = {68}, .weights = {}};
    for (std::int64_t output = 0; output < 20; ++output) {
      const auto part = of.row(output).subspan(32, 68);
      run.weights.insert(run.weights.end(), part.begin(), part.end());
    }
    const packed_tensor alone = run.packed(kind);
    for (std::int64_t output = 0; output < 20; ++output) {
      const std::vector<float> all = unpacked(whole, output);
      EXPECT_EQ(std::vector(all.begin() + 32, all.begin() + 100), unpacked(alone, output));
    }
  }
}

TEST(PackedIntegers, ZerosTinyAndHugeWeightsStayInRange) {
  for (const quantisation kind : kinds) {
    for (const float scale : {0.0F, 0x1p-140F, 0x1p-90F, 0x1p-20F, 1.0F, 0x1p60F, 0x1p110F}) {
      matrix of = random_matrix(16, {96}, 5);
      for (float& weight : of.weights) weight *= scale;
      const packed_tensor packed = of.packed(kind);
      for (std::int64_t output = 0; output < 16; ++output) {
        const std::vector<float> found = unpacked(packed, output);
        for (std::size_t i = 0; i < found.size(); ++i) {
          // Below 2^-100 weights are taken as 0.
          EXPECT_NEAR(found[i], of.row(output)[i], 0.08F / 14 * scale + 0x1p-100F) << scale;
        }
      }
    }
  }
}

TEST(PackedIntegers, InfinityAndNanMakeTheirRunNanAndNoOther) {
  for (const quantisation kind : kinds) {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      matrix of = random_matrix(20, {40, 80}, 6);
      const packed_tensor before = of.packed(kind);
      of.weights[3 * 80 + 50] = bad;
      const packed_tensor after = of.packed(kind);
      for (std::int64_t output = 0; output < 20; ++output) {
        const std::vector<float> was = unpacked(before, output);
        const std::vector<float> is = unpacked(after, output);
        for (std::size_t i = 0; i < is.size(); ++i) {
          if (output == 3 && i >= 40) {
            EXPECT_TRUE(std::isnan(is[i]));
          } else {
            EXPECT_EQ(was[i], is[i]);
          }
        }
      }
    }
  }
}

TEST(PackedIntegers, ARunLongerThanItsSumsHoldIsRefused) {
  for (const quantisation kind : kinds) {
    const auto made = packed_tensor::allocate(
        {.outputs = 1, .run_ends = {packing::integer_run_inputs_max + 1}, .kind = kind});
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code, base::error_code::resource_exhausted);
  }
}

TEST(Float16, EveryValueSurvivesTheWayThereAndBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if ((bits & 0x7C00) == 0x7C00) continue;  // infinities and NaN are not converted back
    EXPECT_EQ(to_float16(from_float16(half)), half);
  }
}

TEST(Float16, RoundsToNearestTiesToEven) {
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = from_float16(static_cast<std::uint16_t>(bits));
    const float high = from_float16(static_cast<std::uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(to_float16(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(to_float16(std::nextafter(middle, low)), bits);
    EXPECT_EQ(to_float16(std::nextafter(middle, high)), bits + 1);
  }
}

}  // namespace
}  // namespace troupe::kernels
