// Shared by the tests of the element-wise ops: seeded matrices with padded rows, comparisons that
// name the worst cell, and every instruction path this CPU has.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/bfloat16.hpp"
#include "kernels/numerics.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels::vector_testing {

inline constexpr double float_epsilon = 0x1p-24;    // half an ulp, relative to the larger end
inline constexpr double bfloat16_epsilon = 0x1p-8;  // likewise: 8 significant bits
inline constexpr float poison = -12345.678F;

// SplitMix64.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t x = (state_ += 0x9E3779B97F4A7C15ULL);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2.0 * std::log(1.0 - uniform())) * std::cos(2.0 * M_PI * uniform());
  }

 private:
  std::uint64_t state_;
};

// Rows of T with `padding` poisoned elements behind each; off by one element from any alignment.
template <class T = float>
class padded_matrix {
 public:
  padded_matrix(std::int64_t rows, std::int64_t columns, std::int64_t padding = 3)
      : rows_(rows),
        columns_(columns),
        stride_(columns + padding),
        // Exactly as long as the rows: a read behind the last one is found by ASan.
        elements_(static_cast<std::size_t>(rows * stride_ + 1), poison_element()) {}

  [[nodiscard]] tensor_view view() {
    return {{device_kind::cpu, reinterpret_cast<std::byte*>(elements_.data() + 1)},
            sizeof(T) == 4 ? dtype::float32 : dtype::bfloat16,
            {rows_, columns_, 1},
            stride_};
  }
  [[nodiscard]] T& at(std::int64_t row, std::int64_t column) {
    return elements_[static_cast<std::size_t>(1 + row * stride_ + column)];
  }
  [[nodiscard]] double value(std::int64_t row, std::int64_t column) {
    if constexpr (sizeof(T) == 4) return at(row, column);
    return from_bfloat16(static_cast<std::uint16_t>(at(row, column)));
  }
  void fill(std::uint64_t seed, double scale = 1.0) {
    generator random(seed);
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t i = 0; i < columns_; ++i) {
        at(row, i) = static_cast<T>(scale * random.normal());
      }
    }
  }
  // The bits of some columns of a row.
  [[nodiscard]] std::vector<T> cells(std::int64_t row, std::int64_t begin, std::int64_t end) {
    return std::vector<T>(&at(row, begin), &at(row, begin) + (end - begin));
  }
  // What lies behind the rows must be as it was.
  void expect_padding_untouched() {
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t i = columns_; i < stride_; ++i) {
        ASSERT_EQ(at(row, i), poison_element()) << "behind row " << row << ", column " << i;
      }
    }
  }
  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t columns() const { return columns_; }

 private:
  static T poison_element() {
    if constexpr (sizeof(T) == 4) return poison;
    return static_cast<T>(0x7FC1);
  }
  std::int64_t rows_;
  std::int64_t columns_;
  std::int64_t stride_;
  std::vector<T> elements_;
};

template <class T>
[[nodiscard]] bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Fails with the cell whose error is the largest share of its tolerance(row, column).
template <class T, class U, class Tolerance>
void expect_near(padded_matrix<T>& actual, padded_matrix<U>& expected, const Tolerance& tolerance,
                 const std::string& what) {
  double worst = 0;
  std::string cell;
  for (std::int64_t row = 0; row < expected.rows(); ++row) {
    for (std::int64_t i = 0; i < expected.columns(); ++i) {
      const double got = actual.value(row, i);
      const double want = expected.value(row, i);
      const double allowed = tolerance(row, i, want);
      const double share = std::fabs(got - want) / allowed;
      if (got == want || share <= worst) continue;
      worst = std::isnan(share) ? 1e300 : share;
      cell = "row " + std::to_string(row) + " column " + std::to_string(i) + ": " +
             std::to_string(got) + " for " + std::to_string(want) + ", allowed error " +
             std::to_string(allowed);
    }
  }
  EXPECT_LE(worst, 1.0) << what << ", worst cell: " << cell;
}

[[nodiscard]] inline std::vector<instruction_path> paths() {
  auto found = supported_paths(dtype::bfloat16);
  EXPECT_FALSE(found.empty()) << "no instruction path on this CPU";
  return found;
}

}  // namespace troupe::kernels::vector_testing
