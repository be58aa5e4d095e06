// What of a stream a client may still be spared.
#include "router/stream_opening.hpp"

#include <gtest/gtest.h>

#include <string>

namespace troupe::router {
namespace {

using verdict = stream_opening::verdict;

const std::string role =
    R"(data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""},)"
    R"("logprobs":null,"finish_reason":null}]})"
    "\n\n";
const std::string token =
    R"(data: {"id":"x","choices":[{"index":0,"delta":{"content":"I"},"finish_reason":null}]})"
    "\n\n";

verdict judge(const std::string& bytes) {
  stream_opening opening;
  return opening.feed(bytes);
}

TEST(StreamOpening, HoldsWhatTellsNothing) {
  EXPECT_EQ(judge(role), verdict::hold);
  EXPECT_EQ(judge(": keep-alive\n\n" + role), verdict::hold);
  EXPECT_EQ(judge("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4}}\n\n"), verdict::hold);
  EXPECT_EQ(judge(token.substr(0, token.size() - 1)), verdict::hold);
}

TEST(StreamOpening, PassesAllFromTheFirstTokenOn) {
  stream_opening opening;
  EXPECT_EQ(opening.feed(role), verdict::hold);
  EXPECT_EQ(opening.feed(token + token.substr(0, 9)), verdict::pass);
  EXPECT_EQ(opening.take(), role + token + token.substr(0, 9));
}

TEST(StreamOpening, JudgesTheSameHoweverTheBytesCome) {
  const std::string all = role + token;
  stream_opening opening;
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    ASSERT_EQ(opening.feed(all.substr(i, 1)), verdict::hold) << i;
  }
  EXPECT_EQ(opening.feed(all.substr(all.size() - 1)), verdict::pass);
}

TEST(StreamOpening, KnowsEveryFormOfAToken) {
  for (const char* choice : {
           R"({"index":0,"text":"a","finish_reason":null})",
           R"({"index":0,"text":"","finish_reason":"stop"})",
           R"({"index":0,"delta":{"reasoning_content":"hm"}})",
           R"({"index":0,"delta":{"tool_calls":[{"index":0}]}})",
           R"({"index":0,"delta":{"content":""},"token_ids":[5]})",
       }) {
    EXPECT_EQ(judge("data: {\"choices\":[" + std::string(choice) + "]}\n\n"), verdict::pass)
        << choice;
  }
  EXPECT_EQ(judge("data: [DONE]\n\n"), verdict::pass);
  EXPECT_EQ(judge("event: other\n\n"), verdict::pass);
}

TEST(StreamOpening, RetriesWhatARetryMends) {
  const auto error = [](const std::string& code) {
    return "data: {\"error\":{\"message\":\"m\",\"code\":" + code + "}}\n\n";
  };
  EXPECT_EQ(judge(role + error(R"("aborted")")), verdict::retry);
  EXPECT_EQ(judge(error(R"("unavailable")")), verdict::retry);
  EXPECT_EQ(judge(error("503")), verdict::retry);
  EXPECT_EQ(judge(error(R"("invalid_value")")), verdict::pass);
  EXPECT_EQ(judge(error("400")), verdict::pass);
  EXPECT_EQ(judge("data: {\"error\":null}\n\n"), verdict::pass);
}

TEST(StreamOpening, HoldsABoundedAmount) {
  stream_opening opening;
  const std::string comment = ":" + std::string(1000, 'x') + "\n\n";
  std::size_t fed = 0;
  while (opening.feed(comment) == verdict::hold) {
    fed += comment.size();
    ASSERT_LE(fed, stream_opening::held_bytes_max);
  }
}

}  // namespace
}  // namespace troupe::router
