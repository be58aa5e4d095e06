// Matrices stored as float8_e4m3 in blocks: dequantised whatever the slice, kept on a device where
// the grid's cuts allow it, refused where codes or scales are not what they must be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "kernels/bfloat16.hpp"
#include "kernels/float8.hpp"
#include "models/weight_reader.hpp"
#include "tests/kernels/host_device.hpp"
#include "tests/models/safetensors_cases.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;
using kernels::dtype;
using kernels::quantisation;
using testing::HasSubstr;

// Element (row, column) of every test matrix; no NaN.
std::uint8_t code_at(std::int64_t row, std::int64_t column) {
  const auto mixed = static_cast<std::uint32_t>(row * 7919 + column * 104729) * 2654435761U;
  const auto magnitude = static_cast<std::uint8_t>(mixed % 127);
  return static_cast<std::uint8_t>(magnitude | (mixed >> 31U) << 7U);
}
// Of block (i, j); one is 0. Exact in bfloat16 too.
float scale_at(std::int64_t i, std::int64_t j) {
  return i == 1 && j == 1 ? 0.0F : static_cast<float>(i * 13 + j + 1) * 0x1p-9F;
}

double value_of(std::uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 128) != 0 ? -magnitude : magnitude;
}

// The product is exact in double: one rounding to float32, a second to bfloat16.
float expected_at(std::int64_t row, std::int64_t column, dtype type) {
  const auto scale = static_cast<double>(scale_at(row / 128, column / 128));
  const auto value = static_cast<float>(value_of(code_at(row, column)) * scale);
  return type == dtype::float32 ? value : kernels::from_bfloat16(kernels::to_bfloat16(value));
}

struct shape {
  std::int64_t rows;
  std::int64_t columns;
};
shape blocks_of(const shape& of) { return {(of.rows + 127) / 128, (of.columns + 127) / 128}; }

std::string codes(const shape& of) {
  std::string bytes;
  for (std::int64_t row = 0; row < of.rows; ++row) {
    for (std::int64_t i = 0; i < of.columns; ++i) bytes += static_cast<char>(code_at(row, i));
  }
  return bytes;
}

std::string scales(const shape& of, const char* type = "F32") {
  std::string bytes;
  for (std::int64_t i = 0; i < blocks_of(of).rows; ++i) {
    for (std::int64_t j = 0; j < blocks_of(of).columns; ++j) {
      const float scale = scale_at(i, j);
      const std::uint16_t half = kernels::to_bfloat16(scale);
      const bool wide = std::string(type) == "F32";
      bytes.append(
          wide ? reinterpret_cast<const char*>(&scale) : reinterpret_cast<const char*>(&half),
          wide ? 4 : 2);
    }
  }
  return bytes;
}

class WeightReaderFloat8 : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("troupe_float8_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  void add_bytes(const std::string& name, const shape& of, const char* type,
                 const std::string& bytes) {
    header_[name] =
        tensor_entry(type, {of.rows, of.columns}, data_.size(), data_.size() + bytes.size());
    data_ += bytes;
  }
  void add_vector(const std::string& name, std::int64_t size) {
    const auto bytes = static_cast<std::size_t>(size);
    header_[name] = tensor_entry("F8_E4M3", {size}, data_.size(), data_.size() + bytes);
    data_ += std::string(bytes, '\0');
  }
  void add(const std::string& name, const shape& of, const char* scale_type = "F32") {
    add_bytes(name, of, "F8_E4M3", codes(of));
    add_bytes(name + "_scale_inv", blocks_of(of), scale_type, scales(of, scale_type));
  }
  void open() {
    std::ofstream(folder_ / "model.safetensors", std::ios::binary)
        << safetensors_bytes(header_.dump(), data_);
    auto opened = checkpoint::open(folder_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    files_.emplace(std::move(*opened));
  }

  [[nodiscard]] weight_reader reader(dtype type, kernels::device* on = nullptr) {
    weight_reader made({.files = &*files_, .type = type, .pool = &pool_, .on = on, .progress = {}});
    made.take_float8(true);
    return made;
  }
  [[nodiscard]] weight_reader rounding(quantisation to) {
    weight_reader made({.files = &*files_,
                        .type = dtype::bfloat16,
                        .pool = &pool_,
                        .round_to = to,
                        .progress = {}});
    made.take_float8(true);
    return made;
  }
  [[nodiscard]] weight_reader planner(bool for_device = false) const {
    weight_reader made({.files = &*files_,
                        .type = dtype::bfloat16,
                        .pool = nullptr,
                        .plan_only = true,
                        .plan_for_device = for_device,
                        .progress = {}});
    made.take_float8(true);
    return made;
  }

  // Loading and planning both refuse, in the same words.
  void expect_refused(base::error_code code, const std::string& message) {
    const std::vector<matrix_part> all{{"w", {0, 200}, {0, 300}, 200, 300}};
    for (weight_reader from : {reader(dtype::bfloat16), planner()}) {
      const auto refused = from.matrix(all, {300});
      ASSERT_FALSE(refused.has_value());
      EXPECT_EQ(refused.error().code, code);
      EXPECT_EQ(refused.error().message, message);
    }
  }

  kernels::thread_pool pool_{{.threads = 3}};
  kernels::host_device device_;
  std::optional<checkpoint> files_;

 private:
  fs::path folder_;
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

void expect_slice(const kernels::packed_tensor& packed, std::int64_t first_output,
                  const matrix_part& part) {
  std::vector<float> row(static_cast<std::size_t>(packed.inputs()));
  for (std::int64_t output = 0; output < part.outputs.size(); ++output) {
    packed.unpack_row(first_output + output, row);
    for (std::int64_t input = 0; input < part.inputs.size(); ++input) {
      ASSERT_EQ(row[static_cast<std::size_t>(input)],
                expected_at(part.outputs.begin + output, part.inputs.begin + input, packed.type()))
          << "output " << output << " input " << input;
    }
  }
}

// What is on the device at `output` and `input`, codes times scales.
double kept_at(const kernels::packed_tensor& packed, std::int64_t output, std::int64_t input) {
  std::int64_t place = 0;
  std::int64_t begin = 0;
  for (const std::int64_t end : packed.run_ends()) {
    if (input < end) {
      place += input - begin;
      break;
    }
    place += (end - begin + 127) / 128 * 128;
    begin = end;
  }
  const std::int64_t at = place / 64 * 64 + kernels::float8_place(static_cast<int>(place % 64));
  const auto code =
      std::to_integer<std::uint8_t>(packed.device_rows()[output * packed.padded_inputs() + at]);
  const float scale =
      packed.device_scales()[output / 16 * (packed.padded_inputs() / 128) + place / 128];
  return value_of(code) * static_cast<double>(scale);
}

void expect_kept(const kernels::packed_tensor& packed, std::int64_t first_output,
                 const matrix_part& part) {
  ASSERT_EQ(packed.kind(), quantisation::float8_blocks);
  for (std::int64_t output = 0; output < part.outputs.size(); ++output) {
    for (std::int64_t input = 0; input < part.inputs.size(); ++input) {
      const std::int64_t row = part.outputs.begin + output;
      const std::int64_t column = part.inputs.begin + input;
      const auto scale = static_cast<double>(scale_at(row / 128, column / 128));
      ASSERT_EQ(kept_at(packed, first_output + output, input),
                value_of(code_at(row, column)) * scale)
          << "output " << output << " input " << input;
    }
  }
}

TEST_F(WeightReaderFloat8, SlicesAreDequantisedWhereverTheyAreCut) {
  add("w", {300, 520});
  add("bfloat16_scales", {300, 520}, "BF16");
  open();
  for (const char* const name : {"w", "bfloat16_scales"}) {
    for (const dtype type : {dtype::float32, dtype::bfloat16}) {
      for (const auto& [outputs, inputs] : {std::pair<range, range>{{0, 300}, {0, 520}},
                                            {{127, 130}, {127, 385}},
                                            {{5, 261}, {1, 130}},
                                            {{299, 300}, {519, 520}},
                                            {{128, 256}, {128, 256}}}) {
        const matrix_part part{name, outputs, inputs, 300, 520};
        const std::int64_t width = inputs.size();
        weight_reader from = reader(type);
        const auto packed = from.matrix({part}, {0, width / 3, width / 3, width});
        ASSERT_TRUE(packed.has_value()) << packed.error().message;
        EXPECT_EQ(packed->kind(), quantisation::none);
        expect_slice(*packed, 0, part);
      }
    }
  }
}

// The codes of integers are those of the float32 values, not of their bfloat16.
TEST_F(WeightReaderFloat8, WhatIsDequantisedIsRoundedToIntegers) {
  add("w", {300, 520});
  open();
  std::vector<float> values;
  for (std::int64_t row = 0; row < 300; ++row) {
    for (std::int64_t i = 0; i < 520; ++i) values.push_back(expected_at(row, i, dtype::float32));
  }
  const matrix_part part{"w", {0, 300}, {0, 520}, 300, 520};
  for (const quantisation kind : {quantisation::int8_runs, quantisation::int4_groups}) {
    weight_reader from = rounding(kind);
    const auto packed = from.matrix({part}, {520}, matrix_cuts{.output_unit = 1});
    const auto vocabulary = from.matrix({part}, {520});
    ASSERT_TRUE(packed.has_value() && vocabulary.has_value());
    EXPECT_EQ(packed->kind(), kind);
    EXPECT_EQ(vocabulary->kind(), quantisation::int8_runs);
    EXPECT_EQ(from.bytes(), packed->bytes() + vocabulary->bytes());
    auto expected =
        kernels::packed_tensor::allocate({.outputs = 300, .run_ends = {520}, .kind = kind});
    ASSERT_TRUE(expected.has_value());
    expected->pack({.rows = std::as_bytes(std::span(values)),
                    .source = kernels::source_dtype::float32,
                    .first_output = 0,
                    .outputs = 300});
    std::vector<float> found(520);
    std::vector<float> wanted(520);
    for (std::int64_t row = 0; row < 300; ++row) {
      packed->unpack_row(row, found);
      expected->unpack_row(row, wanted);
      EXPECT_EQ(found, wanted) << "row " << row;
    }
  }
}

TEST_F(WeightReaderFloat8, MatricesLargerThanTheStagingBufferAreDequantisedInPieces) {
  constexpr shape large{1700, 640};
  static_assert(large.rows * large.columns > static_cast<std::int64_t>(1 << 20));
  add("small", {5, 640});
  add("large", large);
  open();
  const matrix_part small{"small", {0, 5}, {0, 640}, 5, 640};
  const matrix_part part{"large", {1, 1700}, {0, 640}, 1700, 640};
  weight_reader from = reader(dtype::bfloat16);
  const auto packed = from.matrix({small, part}, {640});
  ASSERT_TRUE(packed.has_value()) << packed.error().message;
  expect_slice(*packed, 0, small);
  expect_slice(*packed, 5, part);
}

TEST_F(WeightReaderFloat8, EveryTensorParallelSizeHasTheSameMatrix) {
  add("w", {300, 520});
  open();
  const grid rows{.size = 300, .unit = 20};
  const grid columns{.size = 520, .unit = 40};
  for (const int tp_size : {1, 2, 4, 8}) {
    for (int rank = 0; rank < tp_size; ++rank) {
      weight_reader from = reader(dtype::bfloat16);
      const matrix_part by_rows{"w", rows.rank_range(rank, tp_size), {0, 520}, 300, 520};
      const matrix_part by_columns{"w", {0, 300}, columns.rank_range(rank, tp_size), 300, 520};
      const auto some_rows = from.matrix({by_rows}, {520});
      const auto some_columns = from.matrix({by_columns}, columns.rank_run_ends(rank, tp_size));
      ASSERT_TRUE(some_rows.has_value() && some_columns.has_value());
      expect_slice(*some_rows, 0, by_rows);
      expect_slice(*some_columns, 0, by_columns);
    }
  }
}

TEST_F(WeightReaderFloat8, ADeviceKeepsCodesAndTheirScales) {
  // Query, key and value heads of 48, three query heads to one; columns in runs of 128.
  add("q", {288, 520});
  add("k", {96, 520});
  add("w", {300, 1024});
  open();
  const grid heads{.size = 6, .unit = 1};
  const grid columns{.size = 1024, .unit = 128};
  const auto scaled = [](range of) { return range{of.begin * 48, of.end * 48}; };
  for (const int tp_size : {1, 2, 4, 8}) {
    for (int rank = 0; rank < tp_size; ++rank) {
      const range query = heads.rank_range(rank, tp_size);
      const range kv{query.begin / 3, (query.end + 2) / 3};
      const matrix_part q{"q", scaled(query), {0, 520}, 288, 520};
      const matrix_part k{"k", scaled(kv), {0, 520}, 96, 520};
      const matrix_part w{"w", {0, 300}, columns.rank_range(rank, tp_size), 300, 1024};
      weight_reader from = reader(dtype::bfloat16, &device_);
      const auto stacked = from.matrix({q, k, k}, {520}, matrix_cuts{.output_unit = 48});
      const auto wide =
          from.matrix({w}, columns.rank_run_ends(rank, tp_size), matrix_cuts{.inputs = columns});
      ASSERT_TRUE(stacked.has_value()) << stacked.error().message;
      ASSERT_TRUE(wide.has_value()) << wide.error().message;
      expect_kept(*stacked, 0, q);
      expect_kept(*stacked, q.outputs.size(), k);
      expect_kept(*stacked, q.outputs.size() + k.outputs.size(), k);
      expect_kept(*wide, 0, w);
      EXPECT_EQ(from.bytes(), stacked->bytes() + wide->bytes());
      EXPECT_EQ(from.why_dequantised(), "");

      weight_reader plan = planner(true);
      ASSERT_TRUE(plan.matrix({q, k, k}, {520}, matrix_cuts{.output_unit = 48}).has_value());
      ASSERT_TRUE(
          plan.matrix({w}, columns.rank_run_ends(rank, tp_size), matrix_cuts{.inputs = columns})
              .has_value());
      EXPECT_EQ(plan.bytes(), from.bytes());
    }
  }
}

TEST_F(WeightReaderFloat8, WhatIsNotCutAtBlocksIsDequantisedOnEveryRank) {
  add("w", {300, 1536});
  open();
  // Rank 4 of 8 has one run that begins at a multiple of 128; run 1 does not.
  const grid columns{.size = 1536, .unit = 32};
  ASSERT_EQ(columns.run(4).begin % 128, 0);
  ASSERT_NE(columns.run(1).begin % 128, 0);
  for (const int tp_size : {1, 2, 8}) {
    for (int rank = 0; rank < tp_size; ++rank) {
      const matrix_part part{"w", {0, 300}, columns.rank_range(rank, tp_size), 300, 1536};
      weight_reader from = reader(dtype::bfloat16, &device_);
      const auto packed =
          from.matrix({part}, columns.rank_run_ends(rank, tp_size), matrix_cuts{.inputs = columns});
      ASSERT_TRUE(packed.has_value()) << packed.error().message;
      EXPECT_EQ(packed->kind(), quantisation::none);
      EXPECT_THAT(from.why_dequantised(),
                  testing::AllOf(testing::StartsWith("1 matrices"), testing::EndsWith(": w")));
      // The first run's elements as bfloat16, from the device's rows.
      for (const std::int64_t output : {0, 127, 128, 299}) {
        for (std::int64_t i = 0; i < packed->run_ends()[0]; ++i) {
          std::uint16_t bits = 0;
          const auto at = static_cast<std::size_t>(output * packed->padded_inputs() + i) * 2;
          std::memcpy(&bits, packed->device_rows() + at, 2);
          ASSERT_EQ(kernels::from_bfloat16(bits),
                    expected_at(output, part.inputs.begin + i, dtype::bfloat16));
        }
      }
    }
  }
}

TEST_F(WeightReaderFloat8, OnlyABfloat16ProductKeepsCodes) {
  add("w", {64, 256});
  add("odd", {40, 256});
  add_bytes("plain", {64, 256}, "BF16", std::string(64 * 256 * 2, '\0'));
  open();
  const matrix_part part{"w", {0, 64}, {0, 256}, 64, 256};
  const auto kind = [&](weight_reader from, const std::vector<matrix_part>& parts,
                        const std::optional<matrix_cuts>& cuts) {
    return from.matrix(parts, {256}, cuts).value().kind();
  };
  const matrix_cuts rows{.output_unit = 16};
  EXPECT_EQ(kind(reader(dtype::bfloat16, &device_), {part}, rows), quantisation::float8_blocks);
  EXPECT_EQ(kind(reader(dtype::bfloat16), {part}, rows), quantisation::none);
  EXPECT_EQ(kind(reader(dtype::float32, &device_), {part}, rows), quantisation::none);
  EXPECT_EQ(kind(reader(dtype::bfloat16, &device_), {part}, std::nullopt), quantisation::none);
  EXPECT_EQ(kind(reader(dtype::bfloat16, &device_), {part}, matrix_cuts{.output_unit = 8}),
            quantisation::none);
  const matrix_part plain{"plain", {0, 64}, {0, 256}, 64, 256};
  EXPECT_EQ(kind(reader(dtype::bfloat16, &device_), {plain}, rows), quantisation::none);
  EXPECT_EQ(kind(reader(dtype::bfloat16, &device_), {part, plain}, rows), quantisation::none);
}

TEST_F(WeightReaderFloat8, WithoutQuantizationConfigTheyAreRefused) {
  add("w", {64, 64});
  open();
  weight_reader from({.files = &*files_, .type = dtype::bfloat16, .pool = &pool_, .progress = {}});
  EXPECT_EQ(from.matrix({{"w", {0, 64}, {0, 64}, 64, 64}}, {64}).error().message,
            "tensor w is float8_e4m3 but config.json has no quantization_config that says how it "
            "is scaled: take config.json from where the weights are from");
}

TEST_F(WeightReaderFloat8, ScalesMustBeThere) {
  add_bytes("w", {200, 300}, "F8_E4M3", codes({200, 300}));
  add_bytes("w_scale", {2, 3}, "F32", scales({200, 300}));
  open();
  weight_reader from = planner();
  const auto refused = from.matrix({{"w", {0, 200}, {0, 300}, 200, 300}}, {300});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::not_found);
  EXPECT_THAT(refused.error().message, HasSubstr("no tensor \"w_scale_inv\""));
}

TEST_F(WeightReaderFloat8, ScalesMustHaveTheBlocksShape) {
  add_bytes("w", {200, 300}, "F8_E4M3", codes({200, 300}));
  add_bytes("w_scale_inv", {3, 2}, "F32", scales({200, 300}));
  open();
  expect_refused(base::error_code::invalid_argument,
                 "tensor w_scale_inv has shape [3, 2] but scales of blocks of 128 x 128 make it "
                 "[2, 3]");
}

TEST_F(WeightReaderFloat8, ScalesMustBeFloat32OrBfloat16) {
  add_bytes("w", {200, 300}, "F8_E4M3", codes({200, 300}));
  add_bytes("w_scale_inv", {2, 3}, "F16", std::string(12, '\0'));
  open();
  expect_refused(base::error_code::invalid_argument,
                 "tensor w_scale_inv is float16; scales are float32 or bfloat16");
}

TEST_F(WeightReaderFloat8, ScalesThatAreNoneAreCorrupt) {
  const std::vector<std::pair<std::string, float>> wrong{
      {"nan", std::nanf("")}, {"infinite", INFINITY}, {"negative", -0.5F}, {"large", 0x1p119F}};
  for (const auto& [name, scale] : wrong) {
    std::string bytes = scales({200, 300});
    std::memcpy(bytes.data() + 20, &scale, 4);  // the last
    add_bytes(name, {200, 300}, "F8_E4M3", codes({200, 300}));
    add_bytes(name + "_scale_inv", {2, 3}, "F32", bytes);
  }
  open();
  for (const auto& [name, scale] : wrong) {
    weight_reader from = reader(dtype::bfloat16);
    const auto refused = from.matrix({{name, {0, 16}, {0, 300}, 200, 300}}, {300});
    ASSERT_FALSE(refused.has_value()) << name;
    EXPECT_EQ(refused.error().code, base::error_code::data_loss);
    EXPECT_THAT(refused.error().message, HasSubstr(name + "_scale_inv holds the scale"));
  }
}

TEST_F(WeightReaderFloat8, TheLargestScaleStaysFinite) {
  const float largest = float8_scale_max;
  add_bytes("w", {1, 1}, "F8_E4M3", "\x7E");
  add_bytes("w_scale_inv", {1, 1}, "F32", std::string(reinterpret_cast<const char*>(&largest), 4));
  open();
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    weight_reader from = reader(type);
    const auto packed = from.matrix({{"w", {0, 1}, {0, 1}, 1, 1}}, {1});
    ASSERT_TRUE(packed.has_value()) << packed.error().message;
    std::vector<float> row(1);
    packed->unpack_row(0, row);
    EXPECT_EQ(static_cast<double>(row[0]), std::ldexp(448, 118));
  }
}

TEST_F(WeightReaderFloat8, ANanCodeIsCorruptWhereItIsRead) {
  std::string bytes = codes({200, 300});
  bytes[150 * 300 + 7] = '\xFF';
  add_bytes("w", {200, 300}, "F8_E4M3", bytes);
  add_bytes("w_scale_inv", {2, 3}, "F32", scales({200, 300}));
  open();
  for (kernels::device* const on :
       {static_cast<kernels::device*>(nullptr), static_cast<kernels::device*>(&device_)}) {
    weight_reader from = reader(dtype::bfloat16, on);
    const matrix_cuts cuts{.output_unit = 16};
    const auto refused = from.matrix({{"w", {0, 200}, {0, 300}, 200, 300}}, {300}, cuts);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, base::error_code::data_loss);
    EXPECT_EQ(refused.error().message,
              "tensor w holds the code of NaN: it is corrupt, fetch it again");
    EXPECT_TRUE(from.matrix({{"w", {0, 144}, {0, 300}, 200, 300}}, {300}, cuts).has_value());
  }
}

TEST_F(WeightReaderFloat8, VectorsAreNot) {
  add_vector("n", 8);
  open();
  weight_reader from = reader(dtype::bfloat16);
  EXPECT_EQ(from.vector({{"n", {0, 8}, 8}}).error().message,
            "tensor n is float8_e4m3, which only matrices may be");
}

TEST_F(WeightReaderFloat8, EveryPartIsToldWithItsScales) {
  add("w", {300, 520});
  open();
  std::vector<matrix_part> told;
  weight_reader from({.files = &*files_,
                      .type = dtype::bfloat16,
                      .pool = &pool_,
                      .progress = {},
                      .after_part = [&](const matrix_part& part) -> base::result<void> {
                        told.push_back(part);
                        return {};
                      }});
  from.take_float8(true);
  ASSERT_TRUE(from.matrix({{"w", {100, 257}, {128, 256}, 300, 520}}, {128}).has_value());
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[0].name, "w");
  EXPECT_EQ(told[1].name, "w_scale_inv");
  EXPECT_EQ(told[1].outputs, (range{0, 3}));
  EXPECT_EQ(told[1].inputs, (range{1, 2}));
  EXPECT_EQ(told[1].all_outputs, 3);
  EXPECT_EQ(told[1].all_inputs, 5);
  told.clear();
  ASSERT_TRUE(from.matrix({{"w", {100, 100}, {128, 256}, 300, 520}}, {128}).has_value());
  EXPECT_EQ(told[1].outputs.size() * told[1].inputs.size(), 0);
}

}  // namespace
}  // namespace troupe::models
