#include "models/weight_reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "tests/models/safetensors_cases.hpp"

namespace troupe::models {
namespace {

namespace fs = std::filesystem;
using kernels::dtype;

std::uint16_t to_bfloat16(float value) {  // to nearest, ties to even; no NaN here
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}
float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

// Element `index` of every test tensor: exact in float32, and of the 8, 11 or 24 significant bits
// that the stored type has.
float value_at(std::size_t index, stored_dtype type) {
  const std::uint32_t mixed = static_cast<std::uint32_t>(index) * 2654435761U;
  const int bits = type == stored_dtype::float32 ? 24 : type == stored_dtype::float16 ? 11 : 8;
  const auto whole = static_cast<float>(mixed >> (32 - (bits - 1)));
  const float magnitude = std::ldexp(whole, -(bits - 2)) + std::ldexp(1.0F, -(bits - 2));
  return index % 3 == 0 ? -magnitude : magnitude;
}

std::string stored_bytes(std::size_t count, stored_dtype type) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    const float value = value_at(i, type);
    if (type == stored_dtype::float32) {
      bytes.append(reinterpret_cast<const char*>(&value), 4);
      continue;
    }
    std::uint16_t half = to_bfloat16(value);
    if (type == stored_dtype::float16) {  // normal numbers below 4
      int exponent = 0;
      const float fraction = std::frexp(std::abs(value), &exponent);
      half = static_cast<std::uint16_t>((value < 0 ? 0x8000 : 0) + ((exponent + 14) << 10) +
                                        static_cast<int>((fraction * 2 - 1) * 1024));
    }
    bytes.append(reinterpret_cast<const char*>(&half), 2);
  }
  return bytes;
}

const char* name_in_file(stored_dtype type) {
  return type == stored_dtype::float32 ? "F32" : type == stored_dtype::float16 ? "F16" : "BF16";
}

class WeightReader : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("troupe_weight_reader_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  void add(const std::string& name, std::vector<std::int64_t> shape, stored_dtype type) {
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    add_bytes(name, shape, name_in_file(type), stored_bytes(count, type));
  }
  void add_bytes(const std::string& name, const std::vector<std::int64_t>& shape, const char* type,
                 const std::string& bytes) {
    header_[name] = tensor_entry(type, shape, data_.size(), data_.size() + bytes.size());
    data_ += bytes;
  }

  [[nodiscard]] fs::path file() const { return folder_ / "model.safetensors"; }

  const checkpoint& open() {
    std::ofstream(file(), std::ios::binary) << safetensors_bytes(header_.dump(), data_);
    auto opened = checkpoint::open(folder_);
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    files_.emplace(std::move(*opened));
    return *files_;
  }

  [[nodiscard]] weight_reader reader(dtype type, kernels::thread_pool& pool) const {
    return weight_reader(
        {.files = &*files_, .type = type, .pool = &pool, .plan_only = false, .progress = {}});
  }
  [[nodiscard]] weight_reader planner(dtype type) const {
    return weight_reader(
        {.files = &*files_, .type = type, .pool = nullptr, .plan_only = true, .progress = {}});
  }

  kernels::thread_pool one_{{.threads = 1}};
  kernels::thread_pool three_{{.threads = 3}};
  std::optional<checkpoint> files_;

 private:
  fs::path folder_;
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

// What the packed slice of a stored [all_outputs][all_inputs] tensor must hold.
void expect_slice(const kernels::packed_tensor& packed, std::int64_t first_output,
                  const matrix_part& part, stored_dtype stored) {
  std::vector<float> row(static_cast<std::size_t>(packed.inputs()));
  for (std::int64_t output = 0; output < part.outputs.size(); ++output) {
    packed.unpack_row(first_output + output, row);
    for (std::int64_t input = 0; input < part.inputs.size(); ++input) {
      const std::int64_t index =
          (part.outputs.begin + output) * part.all_inputs + part.inputs.begin + input;
      float expected = value_at(static_cast<std::size_t>(index), stored);
      if (packed.type() == dtype::bfloat16) expected = from_bfloat16(to_bfloat16(expected));
      ASSERT_EQ(row[static_cast<std::size_t>(input)], expected)
          << "output " << output << " input " << input;
    }
  }
}

constexpr stored_dtype stored_types[] = {stored_dtype::float32, stored_dtype::float16,
                                         stored_dtype::bfloat16};

TEST_F(WeightReader, SlicesOfEveryStoredTypeArriveAsTheyAre) {
  for (const stored_dtype stored : stored_types) add(name_in_file(stored), {70, 45}, stored);
  open();
  for (const stored_dtype stored : stored_types) {
    for (const dtype type : {dtype::float32, dtype::bfloat16}) {
      for (kernels::thread_pool* const pool : {&one_, &three_}) {
        SCOPED_TRACE(std::string(name_in_file(stored)) + " as " + std::string(to_string(type)));
        for (const auto& [outputs, inputs] : {std::pair<range, range>{{0, 70}, {0, 45}},
                                              {{5, 61}, {8, 40}},
                                              {{69, 70}, {44, 45}},
                                              {{16, 48}, {0, 45}}}) {
          weight_reader from = reader(type, *pool);
          const matrix_part part{name_in_file(stored), outputs, inputs, 70, 45};
          const std::int64_t width = inputs.size();
          const auto packed = from.matrix({part}, {0, width / 3, width / 3, width});
          ASSERT_TRUE(packed.has_value()) << packed.error().message;
          EXPECT_EQ(packed->outputs(), outputs.size());
          EXPECT_EQ(packed->inputs(), width);
          expect_slice(*packed, 0, part, stored);
        }
      }
    }
  }
}

TEST_F(WeightReader, PartsAreStackedWhateverTheirHeights) {
  // 21 and 3 rows: parts begin inside blocks of 16 outputs, which only one thread may write.
  add("q", {60, 33}, stored_dtype::bfloat16);
  add("k", {9, 33}, stored_dtype::float32);
  add("v", {40, 33}, stored_dtype::float16);
  open();
  const std::vector<matrix_part> parts{{"q", {7, 28}, {0, 33}, 60, 33},
                                       {"k", {3, 6}, {0, 33}, 9, 33},
                                       {"v", {0, 40}, {0, 33}, 40, 33}};
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    weight_reader from = reader(type, three_);
    const auto packed = from.matrix(parts, {33});
    ASSERT_TRUE(packed.has_value()) << packed.error().message;
    ASSERT_EQ(packed->outputs(), 64);
    expect_slice(*packed, 0, parts[0], stored_dtype::bfloat16);
    expect_slice(*packed, 21, parts[1], stored_dtype::float32);
    expect_slice(*packed, 24, parts[2], stored_dtype::float16);
  }
}

TEST_F(WeightReader, MatricesLargerThanTheStagingBufferAreReadInPieces) {
  constexpr std::int64_t outputs = 3001;
  constexpr std::int64_t inputs = 250;
  static_assert(outputs * inputs * 4 >
                2 * static_cast<std::int64_t>(weight_reader::staging_bytes_max));
  add("small", {5, inputs}, stored_dtype::float32);
  add("large", {outputs, inputs}, stored_dtype::float32);
  open();
  for (const range columns : {range{0, inputs}, range{100, 249}}) {
    const matrix_part small{"small", {0, 5}, columns, 5, inputs};
    const matrix_part large{"large", {1, outputs}, columns, outputs, inputs};
    weight_reader from = reader(dtype::float32, three_);
    const auto packed = from.matrix({small, large}, {columns.size()});
    ASSERT_TRUE(packed.has_value()) << packed.error().message;
    expect_slice(*packed, 5, large, stored_dtype::float32);
  }
}

TEST_F(WeightReader, ARankMayHaveNoRowsOrNoInputs) {
  add("w", {20, 40}, stored_dtype::bfloat16);
  open();
  weight_reader from = reader(dtype::bfloat16, one_);
  const auto rowless = from.matrix({{"w", {20, 20}, {0, 40}, 20, 40}}, {40});
  ASSERT_TRUE(rowless.has_value()) << rowless.error().message;
  EXPECT_EQ(rowless->outputs(), 0);
  const auto narrow = from.matrix({{"w", {0, 20}, {8, 8}, 20, 40}}, {0, 0});
  ASSERT_TRUE(narrow.has_value()) << narrow.error().message;
  EXPECT_EQ(narrow->inputs(), 0);
  EXPECT_EQ(narrow->outputs(), 20);
}

TEST_F(WeightReader, VectorsOfEveryStoredTypeAreWidenedExactly) {
  for (const stored_dtype stored : stored_types) add(name_in_file(stored), {33}, stored);
  open();
  weight_reader from = reader(dtype::bfloat16, one_);
  std::vector<vector_part> parts;
  for (const stored_dtype stored : stored_types) {
    parts.push_back({name_in_file(stored), {2, 31}, 33});
  }
  const auto values = from.vector(parts);
  ASSERT_TRUE(values.has_value()) << values.error().message;
  ASSERT_EQ(values->size(), 3U * 29U);
  std::size_t at = 0;
  for (const stored_dtype stored : stored_types) {
    for (std::size_t i = 2; i < 31; ++i) EXPECT_EQ((*values)[at++], value_at(i, stored));
  }
  EXPECT_EQ(from.bytes(), 3U * 29U * 4U);
}

TEST_F(WeightReader, EveryFloat16PatternIsWidenedExactly) {
  std::string bytes;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    bytes += static_cast<char>(bits & 0xff);
    bytes += static_cast<char>(bits >> 8);
  }
  add_bytes("h", {65536}, "F16", bytes);
  open();
  weight_reader from = reader(dtype::float32, one_);
  const auto values = from.vector({{"h", {0, 65536}, 65536}});
  ASSERT_TRUE(values.has_value()) << values.error().message;
  for (int bits = 0; bits < 65536; ++bits) {
    const float found = (*values)[static_cast<std::size_t>(bits)];
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    ASSERT_EQ(std::signbit(found), (bits & 0x8000) != 0) << bits;
    if (exponent == 31) {
      ASSERT_TRUE(mantissa == 0 ? std::isinf(found) : std::isnan(found)) << bits;
      continue;
    }
    const float magnitude = exponent == 0
                                ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    ASSERT_EQ(std::abs(found), magnitude) << bits;
  }
}

TEST_F(WeightReader, APlanCountsTheBytesThatLoadingTakesAndReadsNothing) {
  add("w", {61, 45}, stored_dtype::bfloat16);
  add("n", {45}, stored_dtype::float32);
  open();
  fs::resize_file(file(), fs::file_size(file()) - 1);  // a read of it would fail
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    weight_reader plan = planner(type);
    ASSERT_TRUE(plan.matrix({{"w", {0, 61}, {0, 45}, 61, 45}}, {10, 45}).has_value());
    ASSERT_TRUE(plan.vector({{"n", {0, 45}, 45}}).has_value());
    // 61 outputs are padded to 64; bfloat16 runs of 10 and 35 inputs to 32 and 64.
    EXPECT_EQ(plan.bytes(), (type == dtype::float32 ? 64U * 45U * 4U : 64U * 96U * 2U) + 45U * 4U);
  }
  open();
  for (const dtype type : {dtype::float32, dtype::bfloat16}) {
    weight_reader plan = planner(type);
    ASSERT_TRUE(plan.matrix({{"w", {0, 61}, {0, 45}, 61, 45}}, {10, 45}).has_value());
    weight_reader from = reader(type, one_);
    const auto packed = from.matrix({{"w", {0, 61}, {0, 45}, 61, 45}}, {10, 45});
    ASSERT_TRUE(packed.has_value());
    EXPECT_EQ(from.bytes(), plan.bytes());
    EXPECT_EQ(from.bytes(), packed->bytes());
  }
}

TEST_F(WeightReader, ProgressCountsPackedBytesUpwards) {
  add("w", {16, 32}, stored_dtype::bfloat16);
  add("n", {32}, stored_dtype::bfloat16);
  open();
  std::vector<std::uint64_t> seen;
  weight_reader from({.files = &*files_,
                      .type = dtype::bfloat16,
                      .pool = &one_,
                      .plan_only = false,
                      .progress = [&](std::uint64_t bytes) { seen.push_back(bytes); }});
  ASSERT_TRUE(from.matrix({{"w", {0, 16}, {0, 32}, 16, 32}}, {32}).has_value());
  ASSERT_TRUE(from.vector({{"n", {0, 32}, 32}}).has_value());
  EXPECT_THAT(seen, testing::ElementsAre(16 * 32 * 2, 16 * 32 * 2 + 32 * 4));
}

TEST_F(WeightReader, AMissingTensorIsNamedWithTheNearestOne) {
  add("model.norm.weight", {8}, stored_dtype::float32);
  open();
  for (weight_reader from : {reader(dtype::float32, one_), planner(dtype::float32)}) {
    const auto found = from.vector({{"model.norn.weight", {0, 8}, 8}});
    ASSERT_FALSE(found.has_value());
    EXPECT_EQ(found.error().code, base::error_code::not_found);
    EXPECT_THAT(found.error().message,
                testing::EndsWith("no tensor \"model.norn.weight\"; the nearest is "
                                  "\"model.norm.weight\""));
    const auto matrix = from.matrix({{"model.nose.weight", {0, 8}, {0, 8}, 8, 8}}, {8});
    ASSERT_FALSE(matrix.has_value());
    EXPECT_EQ(matrix.error().code, base::error_code::not_found);
  }
}

TEST_F(WeightReader, AnotherShapeThanConfigJsonsIsRefusedNamingBoth) {
  add("w", {20, 40}, stored_dtype::bfloat16);
  add("n", {40}, stored_dtype::bfloat16);
  open();
  for (weight_reader from : {reader(dtype::bfloat16, one_), planner(dtype::bfloat16)}) {
    const auto wide = from.matrix({{"w", {0, 20}, {0, 41}, 20, 41}}, {41});
    ASSERT_FALSE(wide.has_value());
    EXPECT_EQ(wide.error().code, base::error_code::invalid_argument);
    EXPECT_EQ(wide.error().message,
              "tensor w has shape [20, 40] but config.json makes it [20, 41]");
    const auto turned = from.matrix({{"w", {0, 40}, {0, 20}, 40, 20}}, {20});
    EXPECT_EQ(turned.error().message,
              "tensor w has shape [20, 40] but config.json makes it [40, 20]");
    const auto flat = from.vector({{"w", {0, 800}, 800}});
    EXPECT_EQ(flat.error().message, "tensor w has shape [20, 40] but config.json makes it [800]");
    EXPECT_EQ(from.vector({{"n", {0, 4}, 4}}).error().message,
              "tensor n has shape [40] but config.json makes it [4]");
  }
}

TEST_F(WeightReader, OtherElementTypesAreRefusedNamingTheTensor) {
  add_bytes("w", {4, 4}, "I8", std::string(16, 'x'));
  open();
  const auto refused = reader(dtype::bfloat16, one_).matrix({{"w", {0, 4}, {0, 4}, 4, 4}}, {4});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, base::error_code::invalid_argument);
  EXPECT_EQ(refused.error().message,
            "tensor w has an element type that is not read yet; float32, float16, bfloat16 and "
            "float8_e4m3 are");
}

TEST_F(WeightReader, AFileThatIsCutOffWhileReadingIsDataLossNamingTheTensor) {
  add("first", {64, 64}, stored_dtype::bfloat16);
  add("last", {3000, 256}, stored_dtype::float32);
  add("norm", {256}, stored_dtype::float32);
  open();
  fs::resize_file(file(), fs::file_size(file()) - 5000);
  for (kernels::thread_pool* const pool : {&one_, &three_}) {
    weight_reader from = reader(dtype::bfloat16, *pool);
    EXPECT_TRUE(from.matrix({{"first", {0, 64}, {0, 64}, 64, 64}}, {64}).has_value());
    for (const range columns : {range{0, 256}, range{16, 256}}) {
      const auto cut = from.matrix({{"last", {0, 3000}, columns, 3000, 256}}, {columns.size()});
      ASSERT_FALSE(cut.has_value());
      EXPECT_EQ(cut.error().code, base::error_code::data_loss);
      EXPECT_THAT(cut.error().message, testing::HasSubstr("\"last\""));
      EXPECT_THAT(cut.error().message, testing::HasSubstr("model.safetensors"));
    }
    const auto norm = from.vector({{"norm", {0, 256}, 256}});
    ASSERT_FALSE(norm.has_value());
    EXPECT_EQ(norm.error().code, base::error_code::data_loss);
    EXPECT_THAT(norm.error().message, testing::HasSubstr("\"norm\""));
  }
}

}  // namespace
}  // namespace troupe::models
