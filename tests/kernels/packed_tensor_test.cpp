#include "kernels/packed_tensor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/thread_pool.hpp"

namespace troupe::kernels {
namespace {

packed_tensor allocate(std::int64_t outputs, std::vector<std::int64_t> run_ends, dtype type) {
  auto made =
      packed_tensor::allocate({.outputs = outputs, .run_ends = std::move(run_ends), .type = type});
  EXPECT_TRUE(made.has_value());
  return std::move(*made);
}

// Random bit patterns: NaN, infinities and subnormals are among them.
std::vector<std::byte> random_rows(std::int64_t elements, source_dtype source, unsigned seed) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(elements) * size_of(source));
  std::mt19937 generator(seed);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator());
  return bytes;
}

// The value of one element, by the formats' definitions.
double decode(const std::byte* bytes, source_dtype source) {
  if (source == source_dtype::float32) {
    float value = 0;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, bytes, 2);
  if (source == source_dtype::bfloat16) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = bits >> 10 & 0x1F;
  const int mantissa = bits & 0x3FF;
  if (exponent == 31) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// The nearest bfloat16, ties to the even one, found by search between the two neighbours.
double nearest_bfloat16(double value) {
  if (std::isnan(value) || std::isinf(value) || value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double step = std::ldexp(1.0, std::max(exponent - 8, -133));
  const double below = std::floor(value / step);
  const double rest = value / step - below;
  const bool odd = std::fmod(below, 2.0) != 0;
  const double rounded = (rest > 0.5 || (rest == 0.5 && odd) ? below + 1 : below) * step;
  constexpr double largest = 0x1.FEp127;
  if (std::abs(rounded) > largest) {
    return std::copysign(std::numeric_limits<double>::infinity(), value);
  }
  return std::copysign(rounded, value);
}

void expect_same_value(double expected, float got, const std::string& where) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(got)) << where;
  } else {
    EXPECT_EQ(expected, static_cast<double>(got)) << where;
  }
}

class PackedTensor : public testing::TestWithParam<std::tuple<source_dtype, dtype>> {
 protected:
  [[nodiscard]] static source_dtype source() { return std::get<0>(GetParam()); }
  [[nodiscard]] static dtype type() { return std::get<1>(GetParam()); }
  [[nodiscard]] static double expected(const std::byte* bytes) {
    const double value = decode(bytes, source());
    return type() == dtype::bfloat16 ? nearest_bfloat16(value) : value;
  }
};

INSTANTIATE_TEST_SUITE_P(EveryConversion, PackedTensor,
                         testing::Combine(testing::Values(source_dtype::float32,
                                                          source_dtype::float16,
                                                          source_dtype::bfloat16),
                                          testing::Values(dtype::float32, dtype::bfloat16)));

const std::vector<std::vector<std::int64_t>> grids{{1},
                                                   {31},
                                                   {32},
                                                   {100},
                                                   {0},
                                                   {32, 64},
                                                   {0, 33},
                                                   {5, 37, 37, 64},
                                                   {0, 0, 1, 32, 65, 96, 96, 131}};

TEST_P(PackedTensor, GivesBackEveryRowConverted) {
  for (const auto& run_ends : grids) {
    for (const std::int64_t outputs : {1, 15, 16, 17, 50}) {
      const std::int64_t inputs = run_ends.back();
      const auto rows = random_rows(outputs * inputs, source(), 1);
      packed_tensor packed = allocate(outputs, run_ends, type());
      packed.pack({.rows = rows, .source = source(), .first_output = 0, .outputs = outputs});
      std::vector<float> row(static_cast<std::size_t>(inputs));
      for (std::int64_t output = 0; output < outputs; ++output) {
        packed.unpack_row(output, row);
        for (std::int64_t i = 0; i < inputs; ++i) {
          const std::byte* at =
              rows.data() + (output * inputs + i) * static_cast<std::int64_t>(size_of(source()));
          expect_same_value(expected(at), row[static_cast<std::size_t>(i)],
                            "output " + std::to_string(output) + " input " + std::to_string(i));
        }
      }
    }
  }
}

// Every 16-bit pattern; for float32 every upper half with the lower halves around a tie.
TEST_P(PackedTensor, ConvertsEveryPattern) {
  const std::vector<std::uint32_t> lower = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
  const std::size_t variants = source() == source_dtype::float32 ? lower.size() : 1;
  std::vector<std::byte> bytes(65536 * variants * size_of(source()));
  for (std::uint32_t i = 0; i < 65536 * variants; ++i) {
    const std::uint32_t bits =
        source() == source_dtype::float32
            ? i / static_cast<std::uint32_t>(variants) << 16 | lower[i % variants]
            : i;
    std::memcpy(bytes.data() + i * size_of(source()), &bits, size_of(source()));
  }
  const auto inputs = static_cast<std::int64_t>(65536 * variants / 16);
  packed_tensor packed = allocate(16, {inputs}, type());
  packed.pack({.rows = bytes, .source = source(), .first_output = 0, .outputs = 16});
  std::vector<float> row(static_cast<std::size_t>(inputs));
  for (std::int64_t output = 0; output < 16; ++output) {
    packed.unpack_row(output, row);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::size_t at = static_cast<std::size_t>(output) * row.size() + i;
      const double value = expected(bytes.data() + at * size_of(source()));
      ASSERT_TRUE(std::isnan(value) ? std::isnan(row[i]) : value == static_cast<double>(row[i]))
          << "pattern " << at << ": " << row[i] << " for " << value;
      ASSERT_TRUE(std::isnan(value) || std::signbit(value) == std::signbit(row[i]));
    }
  }
}

TEST_P(PackedTensor, IsTheSameHoweverTheRowsArrive) {
  for (const auto& run_ends : grids) {
    const std::int64_t outputs = 53;
    const std::int64_t inputs = run_ends.back();
    const std::size_t row_bytes = static_cast<std::size_t>(inputs) * size_of(source());
    const auto rows = random_rows(outputs * inputs, source(), 2);
    packed_tensor whole = allocate(outputs, run_ends, type());
    whole.pack({.rows = rows, .source = source(), .first_output = 0, .outputs = outputs});
    for (const std::int64_t piece : {1, 7, 16, 20}) {
      packed_tensor pieces = allocate(outputs, run_ends, type());
      for (std::int64_t first = (outputs - 1) / piece * piece; first >= 0; first -= piece) {
        const std::int64_t count = std::min(piece, outputs - first);
        const auto part = std::span(rows).subspan(static_cast<std::size_t>(first) * row_bytes,
                                                  static_cast<std::size_t>(count) * row_bytes);
        pieces.pack({.rows = part, .source = source(), .first_output = first, .outputs = count});
      }
      ASSERT_EQ(whole.bytes(), pieces.bytes());
      EXPECT_TRUE(whole.bytes() == 0 ||
                  std::memcmp(whole.block(0), pieces.block(0), whole.bytes()) == 0)
          << "pieces of " << piece << " rows";
    }
  }
}

TEST_P(PackedTensor, TakesRowsAtAnyByte) {
  const std::int64_t outputs = 33;
  const std::int64_t inputs = 77;
  auto rows = random_rows(outputs * inputs, source(), 3);
  packed_tensor aligned = allocate(outputs, {inputs}, type());
  aligned.pack({.rows = rows, .source = source(), .first_output = 0, .outputs = outputs});
  rows.insert(rows.begin(), std::byte{0});
  packed_tensor odd = allocate(outputs, {inputs}, type());
  odd.pack({.rows = std::span(rows).subspan(1),
            .source = source(),
            .first_output = 0,
            .outputs = outputs});
  EXPECT_EQ(std::memcmp(aligned.block(0), odd.block(0), aligned.bytes()), 0);
}

TEST(PackedTensorLayout, IsTheDocumentedOne) {
  // Two runs of 3 and 33 inputs pad to 32 and 64.
  const std::int64_t outputs = 18;
  const auto rows = random_rows(outputs * 36, source_dtype::bfloat16, 4);
  packed_tensor packed = allocate(outputs, {3, 36}, dtype::bfloat16);
  packed.pack(
      {.rows = rows, .source = source_dtype::bfloat16, .first_output = 0, .outputs = outputs});
  EXPECT_EQ(packed.padded_inputs(), 96);
  EXPECT_EQ(packed.bytes(), 2U * 3U * 1024U);
  for (std::int64_t block = 0; block < 2; ++block) {
    const auto* tiles = reinterpret_cast<const std::uint16_t*>(packed.block(block));
    for (std::int64_t place = 0; place < 96; ++place) {
      const std::int64_t input =
          place < 32 ? (place < 3 ? place : -1) : (place - 32 < 33 ? place - 32 + 3 : -1);
      for (std::int64_t o = 0; o < 16; ++o) {
        const std::int64_t output = block * 16 + o;
        std::uint16_t expected = 0;
        if (input >= 0 && output < outputs) {
          std::memcpy(&expected, rows.data() + (output * 36 + input) * 2, 2);
        }
        const std::int64_t at = place / 32 * 512 + place % 32 / 2 * 32 + o * 2 + place % 2;
        ASSERT_EQ(tiles[at], expected) << "output " << output << " place " << place;
      }
    }
  }
}

TEST(PackedTensorLayout, TakesTheBytesItSaid) {
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    for (const auto& run_ends : grids) {
      const packed_shape shape{.outputs = 37, .run_ends = run_ends, .type = type};
      EXPECT_EQ(packed_tensor::allocate(shape)->bytes(), packed_tensor::packed_bytes(shape));
    }
  }
}

TEST(PackedTensorLayout, RefusesWhatCannotBeAddressed) {
  const auto made = packed_tensor::allocate({.outputs = std::int64_t{1} << 40,
                                             .run_ends = {std::int64_t{1} << 40},
                                             .type = dtype::bfloat16});
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, base::error_code::resource_exhausted);
  EXPECT_THAT(made.error().message, testing::HasSubstr("1099511627776 x 1099511627776"));
}

}  // namespace
}  // namespace troupe::kernels
