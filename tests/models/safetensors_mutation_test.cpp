// Whatever bytes stand in a safetensors file or its index: a refusal in one line, or tensors that
// tile the file and can be read to the last byte.
#include "models/safetensors.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "models/checkpoint_index.hpp"
#include "tests/models/mutation.hpp"
#include "tests/models/safetensors_cases.hpp"

namespace troupe::models {
namespace {

constexpr std::uint64_t seed = 5;

const std::string header_seed =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
    R"("c":{"dtype":"U8","shape":[],"data_offsets":[32,33]},)"
    R"("d":{"dtype":"F16","shape":[0,7],"data_offsets":[33,33]}})";
constexpr std::uint64_t data_bytes = 33;

void expect_one_clear_line(const base::error& error, const std::string& text) {
  EXPECT_TRUE(error.code == base::error_code::invalid_argument ||
              error.code == base::error_code::data_loss ||
              error.code == base::error_code::not_found)
      << text;
  EXPECT_LT(error.message.size(), 1000U) << error.message;
  for (const char c : error.message) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << error.message;
}

std::uint64_t values_of(const tensor_info& tensor) {
  std::uint64_t values = 1;
  for (const std::int64_t size : tensor.shape) values *= static_cast<std::uint64_t>(size);
  return values;
}

TEST(SafetensorsMutation, HeaderIsRefusedOrTilesTheData) {
  constexpr int rounds = 30'000;
  mutator change(seed);
  int accepted = 0;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("seed {} round {}", seed, round));
    const std::string text = change.mutated(header_seed);
    const auto result = parse_safetensors(
        {.json = text, .data_bytes = data_bytes, .tensors_max = 100, .data_offset = 1000}, "m");
    if (!result) {
      expect_one_clear_line(result.error(), text);
      continue;
    }
    ++accepted;
    std::uint64_t end = 1000;
    for (const tensor_info& tensor : *result) {
      EXPECT_EQ(tensor.offset, end) << text;
      end += tensor.bytes;
      if (tensor.dtype != stored_dtype::other) {
        EXPECT_EQ(values_of(tensor) * size_of(tensor.dtype), tensor.bytes) << text;
      }
    }
    EXPECT_EQ(end, 1000 + data_bytes) << text;
  }
  EXPECT_GT(accepted, rounds / 300);  // few changes keep names, shapes and offsets in agreement
  EXPECT_LT(accepted, rounds / 2);
}

TEST(SafetensorsMutation, FileIsRefusedOrReadsToItsLastByte) {
  constexpr int rounds = 3'000;
  const auto folder = std::filesystem::path(testing::TempDir()) /
                      fmt::format("troupe_safetensors_mutation_{}", ::getpid());
  std::filesystem::create_directories(folder);
  const std::string whole = safetensors_bytes(header_seed, counted_bytes(data_bytes));
  mutator change(seed + 1);
  int accepted = 0;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("seed {} round {}", seed + 1, round));
    std::string bytes = whole;
    // Mostly single bytes, so that lengths still agree and the checks behind them are reached.
    if (round % 4 == 0) {
      bytes = change.mutated(bytes);
    } else {
      bytes[change.below(bytes.size())] = static_cast<char>(change.below(256));
    }
    // Removed first: a file system may flush one that is truncated and written again.
    std::filesystem::remove(folder / "model.safetensors");
    std::ofstream(folder / "model.safetensors", std::ios::binary) << bytes;
    const auto opened = checkpoint::open(folder);
    if (!opened) {
      expect_one_clear_line(opened.error(), bytes);
      continue;
    }
    ++accepted;
    for (const tensor_info& tensor : opened->tensors()) {
      std::vector<std::byte> out(tensor.bytes);
      EXPECT_TRUE(opened->read(tensor, 0, out)) << bytes;
    }
  }
  std::filesystem::remove_all(folder);
  EXPECT_GT(accepted, rounds / 100);
  EXPECT_LT(accepted, rounds * 9 / 10);
}

TEST(SafetensorsMutation, IndexIsRefusedOrNamesPlainFiles) {
  constexpr int rounds = 20'000;
  const std::string index =
      R"({"metadata":{"total_size":48,"more":[1,{"x":null}]},"weight_map":{)"
      R"("a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}})";
  mutator change(seed + 2);
  int accepted = 0;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("seed {} round {}", seed + 2, round));
    const std::string text = change.mutated(index);
    const auto result = parse_checkpoint_index(text, "i");
    if (!result) {
      expect_one_clear_line(result.error(), text);
      continue;
    }
    ++accepted;
    for (const std::string& file : result->files) {
      EXPECT_EQ(file, std::filesystem::path(file).filename().string()) << text;
      EXPECT_TRUE(file.ends_with(".safetensors")) << text;
    }
    for (const auto& [name, file] : result->tensors) EXPECT_LT(file, result->files.size()) << text;
  }
  EXPECT_GT(accepted, rounds / 100);
  EXPECT_LT(accepted, rounds * 9 / 10);
}

}  // namespace
}  // namespace troupe::models
