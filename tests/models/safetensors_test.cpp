#include "models/safetensors.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/models/safetensors_cases.hpp"

namespace troupe::models {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

base::result<std::vector<tensor_info>> parse(const std::string& text, std::uint64_t data_bytes) {
  return parse_safetensors({.json = text,
                            .data_bytes = data_bytes,
                            .tensors_max = checkpoint_limits::tensors_max,
                            .data_offset = 8 + text.size()},
                           "m.safetensors");
}

std::string refusal(const std::string& text, std::uint64_t data_bytes = 8,
                    base::error_code code = base::error_code::invalid_argument) {
  const auto result = parse(text, data_bytes);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_THAT(result.error().message, HasSubstr("m.safetensors: "));
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
  return result.error().message;
}

// One tensor "w" of 2 x 2 bfloat16 in 8 bytes, with one field replaced by raw JSON.
std::string one(const char* dtype = R"("BF16")", const char* shape = "[2,2]",
                const char* offsets = "[0,8]") {
  return std::string(R"({"w":{"dtype":)") + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}}";
}

TEST(Safetensors, ReadsTensorsInFileOrder) {
  const json header = {{"__metadata__", {{"format", "pt"}, {"shape", "x"}}},
                       {"b", tensor_entry("F32", {3}, 0, 12)},
                       {"a", tensor_entry("BF16", {2, 2}, 12, 20)},
                       {"scalar", tensor_entry("F16", json::array(), 20, 22)},
                       {"empty", tensor_entry("I64", {0, 5}, 22, 22)},
                       {"mask", tensor_entry("BOOL", {2}, 22, 24)},
                       {"codes", tensor_entry("F8_E4M3", {3}, 24, 27)}};
  const std::string text = header.dump() + "   ";  // padded with spaces as the writers do
  const auto tensors = parse(text, 27);
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 6U);
  std::vector<std::string> names;
  for (const auto& tensor : *tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("b", "a", "scalar", "empty", "mask", "codes"));
  EXPECT_EQ((*tensors)[0].dtype, stored_dtype::float32);
  EXPECT_EQ((*tensors)[1].dtype, stored_dtype::bfloat16);
  EXPECT_EQ((*tensors)[2].dtype, stored_dtype::float16);
  EXPECT_EQ((*tensors)[3].dtype, stored_dtype::other);
  EXPECT_EQ((*tensors)[5].dtype, stored_dtype::float8_e4m3);
  EXPECT_THAT((*tensors)[1].shape, ElementsAre(2, 2));
  EXPECT_TRUE((*tensors)[2].shape.empty());
  EXPECT_EQ((*tensors)[1].offset, 8 + text.size() + 12);
  EXPECT_EQ((*tensors)[1].bytes, 8U);
}

TEST(Safetensors, KnowsEveryDtypeOfTheFormat) {
  const std::vector<std::pair<const char*, int>> bits = {
      {"BOOL", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},   {"I16", 16}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
      {"U16", 16}, {"F16", 16}, {"I32", 32},    {"BF16", 16},   {"U32", 32},
      {"F32", 32}, {"C64", 64}, {"F64", 64},    {"I64", 64},    {"U64", 64}};
  for (const auto& [name, size] : bits) {
    const auto bytes = static_cast<std::uint64_t>(size);  // of 8 values
    EXPECT_TRUE(parse(json{{"w", tensor_entry(name, {8}, 0, bytes)}}.dump(), bytes)) << name;
  }
  EXPECT_THAT(refusal(one("\"F4\"", "[3]")), HasSubstr("no whole number of bytes"));
  EXPECT_THAT(refusal(one("\"Q4_0\"")), HasSubstr("dtype \"Q4_0\" is not one of the format's"));
  EXPECT_THAT(refusal(one("\"bf16\"")), HasSubstr("\"bf16\""));
}

TEST(Safetensors, RefusesEntriesOfTheWrongForm) {
  struct hostile {
    std::string text;
    const char* message;
  };
  const std::vector<hostile> table = {
      {"", "does not begin with {"},
      {" {}", "does not begin with {"},
      {"[]", "does not begin with {"},
      {"{", "not valid JSON"},
      {"{}x", "not valid JSON"},
      {"{\"\xff\":1}", "ill-formed UTF-8"},
      {R"({"w":3})", "tensor \"w\": not an object"},
      {R"({"w":[]})", "tensor \"w\": not an object"},
      {R"({"w":{}})", "needs dtype, shape and data_offsets"},
      {R"({"w":{"dtype":"F32","shape":[2]}})", "needs dtype, shape and data_offsets"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})",
       "field \"x\": only dtype, shape and data_offsets"},
      {R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "field \"dtype\" twice"},
      {R"({"w":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})",
       "field \"shape\" twice"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}})",
       "field \"data_offsets\" twice"},
      {one("3"), "field \"dtype\" is 3: wrong type"},
      {one("[\"F32\"]"), "field \"dtype\": wrong type"},
      {one("\"BF16\"", "4"), "field \"shape\" is 4: wrong type"},
      {one("\"BF16\"", "{}"), "field \"shape\": wrong type"},
      {one("\"BF16\"", "[[4]]"), "deeper than 3"},
      {one("\"BF16\"", "[-4]"), "shape holds -4"},
      {one("\"BF16\"", "[4.0]"), "shape holds 4.0"},
      {one("\"BF16\"", "[\"4\"]"), "shape holds \"4\""},
      {one("\"BF16\"", "[null]"), "shape holds null"},
      {one("\"BF16\"", "[9223372036854775808]"), "shape holds 9223372036854775808"},
      {one("\"BF16\"", "[4]", "[0]"), "data_offsets needs two numbers"},
      {one("\"BF16\"", "[4]", "[]"), "data_offsets needs two numbers"},
      {one("\"BF16\"", "[4]", "[0,8,8]"), "data_offsets needs two numbers"},
      {one("\"BF16\"", "[4]", "[8,0]"), "begin <= end"},
      {one("\"BF16\"", "[4]", "[-8,0]"), "data_offsets holds -8"},
      {one("\"BF16\"", "[1,1,1,1,1,1,1,1,4]"), "more than 8 dimensions"},
      {R"({"__metadata__":3})", "not an object"},
      {R"({"__metadata__":{"a":1}})", "__metadata__: values must be strings"},
      {R"({"__metadata__":{"a":{"b":"c"}}})", "__metadata__: values must be strings"},
      {R"({"__metadata__":{},"__metadata__":{}})", "__metadata__ twice"},
      {R"({"a\u001bb":{}})", "control characters"},
  };
  for (const hostile& h : table) EXPECT_THAT(refusal(h.text), HasSubstr(h.message)) << h.text;
}

TEST(Safetensors, RefusesShapesThatDoNotFitTheirBytes) {
  EXPECT_THAT(refusal(one("\"BF16\"", "[2,3]")),
              HasSubstr("shape [2, 3] of BF16 needs 12 bytes, data_offsets [0, 8] give 8"));
  // 2^32 * 2^32 wraps to 0, 2^61 * 16 bits wraps as well: neither may pass for a small tensor.
  EXPECT_THAT(refusal(one("\"BF16\"", "[4294967296,4294967296]", "[0,0]")),
              HasSubstr("no whole number of bytes below 2^61"));
  EXPECT_THAT(refusal(one("\"BF16\"", "[1152921504606846976]", "[0,0]")),
              HasSubstr("no whole number of bytes below 2^61"));
  EXPECT_THAT(refusal(one("\"BF16\"", "[9223372036854775807,9223372036854775807,4]")),
              HasSubstr("no whole number of bytes"));
}

TEST(Safetensors, RefusesDataThatIsNotTiled) {
  const auto two = [](std::uint64_t begin, std::uint64_t end) {
    return json{{"a", tensor_entry("U8", {4}, 0, 4)},
                {"b", tensor_entry("U8", {end - begin}, begin, end)}}
        .dump();
  };
  EXPECT_EQ(refusal(two(4, 8)), "accepted");
  EXPECT_THAT(refusal(two(5, 8)), HasSubstr("\"b\": its data begins at 5, where the one before"));
  EXPECT_THAT(refusal(two(3, 8)), HasSubstr("without gap or overlap"));
  EXPECT_THAT(refusal(two(0, 4)), HasSubstr("without gap or overlap"));
  EXPECT_THAT(refusal(two(4, 7)), HasSubstr("bytes that belong to no tensor"));
  EXPECT_THAT(refusal(two(4, 9), 8, base::error_code::data_loss),
              AllOf(HasSubstr("\"b\" ends at 9"), HasSubstr("fetch it again")));
  EXPECT_THAT(refusal(one("\"BF16\"", "[4]", "[8,16]"), 16), HasSubstr("begins at 8"));
  EXPECT_THAT(refusal("{}", 1), HasSubstr("bytes that belong to no tensor"));
  EXPECT_EQ(refusal("{}", 0), "accepted");
}

TEST(Safetensors, RefusesOneNameTwice) {
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(refusal(R"({"w":)" + entry + R"(,"v":)" + entry + R"(,"w":)" + entry + "}", 0),
              HasSubstr("tensor \"w\" twice"));
}

TEST(Safetensors, RefusesLongNames) {
  const auto named = [](std::size_t bytes) {
    return json{{std::string(bytes, 'n'), tensor_entry("U8", {8}, 0, 8)}}.dump();
  };
  EXPECT_EQ(refusal(named(512)), "accepted");
  EXPECT_THAT(refusal(named(513)), HasSubstr("a tensor name of 513 bytes, at most 512"));
}

TEST(Safetensors, RefusesMoreTensorsThanAllowed) {
  std::string text = "{";
  for (int i = 0; i < 11; ++i) {
    if (i > 0) text += ',';
    text += fmt::format(R"("t{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", i);
  }
  text += "}";
  safetensors_header header{.json = text, .data_bytes = 0, .tensors_max = 11, .data_offset = 8};
  EXPECT_TRUE(parse_safetensors(header, "m.safetensors"));
  header.tensors_max = 10;
  const auto refused = parse_safetensors(header, "m.safetensors");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("more than 100000 tensors"));
}

TEST(Safetensors, RefusesHeadersBeyondTheirBound) {
  const auto claimed = [](std::uint64_t bytes) {
    const std::string text = length_prefix(bytes);
    std::array<std::byte, 8> prefix{};
    std::memcpy(prefix.data(), text.data(), prefix.size());
    return safetensors_header_bytes(prefix, "m.safetensors");
  };
  EXPECT_EQ(claimed(0x123456).value(), 0x123456U);  // little-endian
  EXPECT_EQ(claimed(16U << 20).value(), 16U << 20);
  for (const std::uint64_t bytes : {(16ULL << 20) + 1, 1ULL << 63, ~0ULL}) {
    const auto refused = claimed(bytes);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::error_code::invalid_argument);
    EXPECT_THAT(refused.error().message, HasSubstr("at most 16777216 are read"));
  }
}

}  // namespace
}  // namespace troupe::models
