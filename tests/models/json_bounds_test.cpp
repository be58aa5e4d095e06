#include "models/json_bounds.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe::models {
namespace {

using testing::HasSubstr;

constexpr json_limits limits = {.bytes_max = 1 << 16, .depth_max = 8};

std::string refusal(const std::string& text) {
  const auto parsed = parse_json(text, limits, "x.json");
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().code, base::error_code::invalid_argument);
  EXPECT_EQ(parsed.error().message.find('\n'), std::string::npos);
  EXPECT_THAT(parsed.error().message, HasSubstr("x.json"));
  return parsed.error().message;
}

TEST(JsonBounds, BuildsWhatTheTextSays) {
  const std::string text = R"({"a":[1,-2,2.5,true,null,"\u00e4"],"b":{"c":{}},"a2":[[],[{}]]})";
  const auto parsed = parse_json(text, limits, "x.json");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(*parsed, nlohmann::json::parse(text));
}

TEST(JsonBounds, RefusesMoreBytesThanAllowed) {
  EXPECT_THAT(refusal(std::string(limits.bytes_max + 1, ' ')), HasSubstr("at most 65536 are read"));
  EXPECT_EQ(refusal(std::string(limits.bytes_max - 2, ' ') + "{}"), "accepted");
}

TEST(JsonBounds, RefusesDepthBeyondTheLimitWithoutRecursion) {
  EXPECT_EQ(refusal(std::string(8, '[') + std::string(8, ']')), "accepted");
  EXPECT_THAT(refusal(std::string(9, '[') + std::string(9, ']')), HasSubstr("deeper than 8"));
  EXPECT_THAT(refusal(std::string(60'000, '[')), HasSubstr("deeper than 8"));
  std::string objects;
  for (int i = 0; i < 9; ++i) objects += R"({"a":)";
  EXPECT_THAT(refusal(objects), HasSubstr("deeper than 8"));
}

TEST(JsonBounds, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_THAT(refusal(R"({"a":1,"a":1})"), HasSubstr("key \"a\" twice"));
  EXPECT_THAT(refusal(R"({"x":[{"b":1,"\u0062":1}]})"), HasSubstr("key \"b\" twice"));
  EXPECT_EQ(refusal(R"({"a":{"a":1},"b":{"a":1}})"), "accepted");
}

TEST(JsonBounds, RefusesWhatIsNotOneJsonDocument) {
  for (const char* text : {"", " ", "{", "{} {}", "{}x", "[1,]", "{\"a\"}", "nul", "'a'", "01",
                           "{\"a\":NaN}", "Infinity", "-", "\"\\ud800\"", "\"a\nb\"", "// c\n1"}) {
    EXPECT_THAT(refusal(text), HasSubstr("not valid JSON")) << text;
  }
}

TEST(JsonBounds, RefusesInvalidUtf8) {
  EXPECT_THAT(refusal("\"\xff\""), HasSubstr("ill-formed UTF-8"));
  EXPECT_THAT(refusal("{\"\xc3\x28\":1}"), HasSubstr("ill-formed UTF-8"));
  EXPECT_THAT(refusal("\"\xed\xa0\x80\""), HasSubstr("ill-formed UTF-8"));  // a surrogate
  EXPECT_THAT(refusal("\"\xc0\xaf\""), HasSubstr("ill-formed UTF-8"));      // overlong
}

TEST(JsonBounds, RefusesNumbersBeyondDouble) {
  EXPECT_NE(refusal("1e999"), "accepted");
  EXPECT_NE(refusal("-1e999"), "accepted");
  EXPECT_EQ(refusal("123456789012345678901234567890"), "accepted");  // a double; fields refuse it
}

TEST(JsonBounds, QuotesSafelyForOneLine) {
  EXPECT_EQ(in_quotes("a\x1b[2Jb\n\xc3"), "\"a\\x1b[2Jb\\x0a\\xc3\"");
  EXPECT_EQ(in_quotes("abcdef", 3), "\"abc...\"");
}

TEST(JsonBounds, DescribesValuesShortly) {
  EXPECT_EQ(described(nlohmann::json::parse("[1,2]")), "a list of 2");
  EXPECT_EQ(described(nlohmann::json::parse("{}")), "an object of 0 fields");
  EXPECT_EQ(described(nlohmann::json::parse("-3.5")), "-3.5");
  EXPECT_EQ(described(nlohmann::json::parse("null")), "null");
  EXPECT_EQ(described(nlohmann::json(std::string(200, 'x'))).size(), 85U);
}

}  // namespace
}  // namespace troupe::models
