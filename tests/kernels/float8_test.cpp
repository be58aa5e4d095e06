// float8_e4m3 against its definition, and how codes and scales lie on a device.
#include "kernels/float8.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/packed_tensor.hpp"
#include "tests/kernels/host_device.hpp"

namespace troupe::kernels {
namespace {

// By the format's definition.
double value_of(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::nan("");
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 128) != 0 ? -magnitude : magnitude;
}

TEST(Float8, EveryCodeHasItsValue) {
  for (int code = 0; code < 256; ++code) {
    const double want = value_of(code);
    const float got = from_float8(static_cast<std::uint8_t>(code));
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << code;
      continue;
    }
    EXPECT_EQ(static_cast<double>(got), want) << code;
    EXPECT_EQ(std::signbit(got), std::signbit(want)) << code;
  }
  EXPECT_EQ(from_float8(0x7E), float8_max);
}

TEST(Float8, RoundsTowardsZero) {
  for (int code = 0; code < 0x7E; ++code) {
    const auto exact = static_cast<float>(value_of(code));
    const auto next = static_cast<float>(value_of(code + 1));
    for (const int sign : {0, 0x80}) {
      const float factor = sign == 0 ? 1.0F : -1.0F;
      for (const float value : {exact, (exact + next) / 2, std::nextafter(next, 0.0F)}) {
        EXPECT_EQ(to_float8_towards_zero(factor * value), code | sign) << value;
      }
    }
  }
  EXPECT_EQ(to_float8_towards_zero(float8_max), 0x7E);
  EXPECT_EQ(to_float8_towards_zero(-float8_max), 0xFE);
}

TEST(Float8, ANanIsFoundWhereverItIs) {
  for (const int nan : {0x7F, 0xFF}) {
    for (std::size_t at = 0; at < 70; ++at) {
      std::vector<std::byte> codes(70, std::byte{0x7E});
      codes[at ^ 1U] = std::byte{0xFE};
      EXPECT_FALSE(has_float8_nan(codes));
      codes[at] = static_cast<std::byte>(nan);
      EXPECT_TRUE(has_float8_nan(codes)) << at;
    }
  }
  EXPECT_FALSE(has_float8_nan({}));
}

TEST(Float8Layout, ALaneOfFourHasItsInputsOfEachStepInARow) {
  std::vector<int> input_at(64, -1);
  for (int i = 0; i < 64; ++i) input_at[static_cast<std::size_t>(float8_place(i))] = i;
  for (int lane = 0; lane < 4; ++lane) {
    for (int step = 0; step < 4; ++step) {
      // As an A operand of mma.m16n8k16 has its columns.
      for (const auto& [j, column] : {std::pair{0, 0}, {1, 1}, {2, 8}, {3, 9}}) {
        EXPECT_EQ(input_at[static_cast<std::size_t>(16 * lane + 4 * step + j)],
                  16 * step + 2 * lane + column);
      }
    }
  }
}

TEST(Float8Layout, PadsEachRunTo128InputsAndPutsTheScalesBehind) {
  host_device device;
  const packed_shape shape{.outputs = 35,
                           .run_ends = {200, 200, 256, 260},
                           .type = dtype::bfloat16,
                           .on = &device,
                           .kind = quantisation::float8_blocks};
  auto packed = packed_tensor::allocate(shape);
  ASSERT_TRUE(packed.has_value());
  ASSERT_EQ(packed->layout(), layout_id::cuda_rows_float8);
  ASSERT_EQ(packed->kind(), quantisation::float8_blocks);
  ASSERT_EQ(packed->padded_inputs(), 256 + 0 + 128 + 128);
  // 35 rows of codes, 3 groups of 16 outputs by 4 segments of 128 inputs.
  ASSERT_EQ(packed->bytes(), 35U * 512 + 3 * 4 * 4);
  EXPECT_EQ(packed_tensor::packed_bytes(shape), packed->bytes());

  std::vector<std::byte> rows;
  for (int i = 0; i < 35 * 260; ++i) rows.push_back(static_cast<std::byte>(i * 37 % 126 + 1));
  packed->pack({.rows = std::span(rows).subspan(20 * 260),
                .source = source_dtype::float8_e4m3,
                .first_output = 20,
                .outputs = 15});
  packed->pack({.rows = std::span(rows).first(20 * 260),
                .source = source_dtype::float8_e4m3,
                .first_output = 0,
                .outputs = 20});
  std::vector<float> scales;
  for (int i = 0; i < 12; ++i) scales.push_back(static_cast<float>(i + 1));
  packed->pack_scales(scales);

  for (std::size_t output = 0; output < 35; ++output) {
    for (std::size_t place = 0; place < 512; ++place) {
      std::byte want{0};
      if (place < 200) want = rows[output * 260 + place];
      if (place >= 256 && place < 312) want = rows[output * 260 + 200 + place - 256];
      if (place >= 384 && place < 388) want = rows[output * 260 + 256 + place - 384];
      const std::size_t at =
          place / 64 * 64 + static_cast<std::size_t>(float8_place(static_cast<int>(place % 64)));
      ASSERT_EQ(packed->device_rows()[output * 512 + at], want) << output << ' ' << place;
    }
  }
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(packed->device_scales()[i], scales[i]) << i;
}

TEST(Float8Layout, OtherMatricesHaveNoScales) {
  host_device device;
  const auto packed =
      packed_tensor::allocate({.outputs = 16, .run_ends = {64}, .on = &device}).value();
  EXPECT_EQ(packed.device_scales(), nullptr);
  EXPECT_EQ(packed.kind(), quantisation::none);
  EXPECT_EQ(packed.layout(), layout_id::cuda_rows);
}

}  // namespace
}  // namespace troupe::kernels
