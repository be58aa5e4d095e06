// What is read of a request before it is passed on.
#include "router/request_traits.hpp"

#include <gtest/gtest.h>

#include <string>

namespace troupe::router {
namespace {

request_traits read(const std::string& body, const std::string& session = {}) {
  return read_traits(body, session, {});
}

std::string chat(const std::string& messages, const std::string& more = {}) {
  return R"({"model":"m","messages":[)" + messages + "]" + more + "}";
}

const std::string system_text = R"({"role":"system","content":"You answer in short sentences."})";
const std::string first = R"({"role":"user","content":"What is a gang of ranks?"})";

TEST(RequestTraits, HoldWhatTheFieldsSay) {
  const request_traits of =
      read(R"({"stream":true,"model":"llm","prompt":"0123456789abcdef","max_tokens":7,"n":3,)"
           R"("stream_options":{"stream":false,"max_tokens":99,"model":"not this"}})");
  EXPECT_EQ(of.model, "llm");
  EXPECT_TRUE(of.stream);
  EXPECT_EQ(of.output_tokens, 21);
  EXPECT_EQ(of.prompt_tokens, 5);
}

TEST(RequestTraits, AConversationKeepsItsGangAsItGrows) {
  const auto begin = read(chat(system_text + "," + first)).affinity;
  ASSERT_TRUE(begin);
  const std::string answer = R"({"role":"assistant","content":"Processes."})";
  const std::string next = R"({"role":"user","content":"And a leader?"})";
  const std::string grown = chat(system_text + "," + first + "," + answer + "," + next);
  EXPECT_EQ(read(grown).affinity, begin);
  EXPECT_NE(read(chat(system_text + "," + next)).affinity, begin);
}

TEST(RequestTraits, RoleMayComeAfterContentAndContentInParts) {
  const std::string parts =
      R"({"content":[{"type":"text","text":"What is a gang of ranks, in parts?"}],"role":"user"})";
  const auto alone = read(chat(parts)).affinity;
  ASSERT_TRUE(alone);
  EXPECT_EQ(read(chat(parts + "," + first)).affinity, alone);
}

TEST(RequestTraits, ASessionIsWorthMoreThanAPrompt) {
  const std::string one = chat(first, R"(,"user":"u1")");
  EXPECT_EQ(read(one).affinity, read(chat(system_text, R"(,"user":"u1")")).affinity);
  EXPECT_NE(read(one).affinity, read(chat(first, R"(,"user":"u2")")).affinity);
  EXPECT_EQ(read(chat(first, R"(,"user":"u1","prompt_cache_key":"k")")).affinity,
            read(chat(first, R"(,"prompt_cache_key":"k","user":"u2")")).affinity);
  EXPECT_EQ(read(one, "s").affinity, read(chat(system_text), "s").affinity);
}

TEST(RequestTraits, ModelsHaveNothingInCommon) {
  const std::string prompt = R"("prompt":"The same beginning of a prompt")";
  EXPECT_NE(read(R"({"model":"a",)" + prompt + "}").affinity,
            read(R"({"model":"b",)" + prompt + "}").affinity);
}

TEST(RequestTraits, CountTokenIdsAndTellThemApart) {
  const request_traits a = read(R"({"prompt":[1,2,3,4,5,6]})");
  EXPECT_EQ(a.prompt_tokens, 7);
  EXPECT_EQ(a.output_tokens, traits_limits{}.output_tokens_assumed);
  ASSERT_TRUE(a.affinity);
  EXPECT_NE(a.affinity, read(R"({"prompt":[1,2,3,4,5,7]})").affinity);
}

TEST(RequestTraits, TooLittleTextIsNoAffinity) {
  EXPECT_FALSE(read(R"({"prompt":"Hi"})").affinity);
}

TEST(RequestTraits, WhatIsNoJsonHasNone) {
  for (const char* body :
       {"", "nonsense", "[", "[1,2]", "{\"model\":", "\"text\"", "{\"a\":1e999}"}) {
    const request_traits of = read(body);
    EXPECT_TRUE(of.model.empty()) << body;
    EXPECT_FALSE(of.affinity) << body;
  }
  EXPECT_FALSE(read(std::string(100'000, '[')).affinity);
}

TEST(RequestTraits, LongBodiesAreKnownByTheirBeginning) {
  const std::string text(1 << 20, 'x');
  const std::string body = R"({"model":"m","prompt":")" + text + R"(","max_tokens":5})";
  const request_traits of = read(body);
  EXPECT_EQ(of.model, "m");
  EXPECT_GT(of.prompt_tokens, (1 << 20) / 6);
  EXPECT_EQ(of.output_tokens, traits_limits{}.output_tokens_assumed);  // behind what is read
}

TEST(RequestTraits, BoundsWhatAClientClaims) {
  const request_traits of =
      read(R"({"prompt":"0123456789abcdef","max_tokens":9223372036854775807,"n":1000000000})");
  EXPECT_GT(of.tokens(), 0);
  EXPECT_GE(read(R"({"max_tokens":-5,"n":-1})").output_tokens, 0);
}

}  // namespace
}  // namespace troupe::router
