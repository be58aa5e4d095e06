// The prompt in the answer: echo of text completions, vLLM's prompt_logprobs.
#include <gtest/gtest.h>

#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

// The first token of a request whose prompt is "abc": with the prompt's own figures.
actors::choice_token first_token(const world& w, const std::string& piece, bool last) {
  auto token = token_of(w.ids(piece)[0],
                        last ? std::optional(schemas::finish_reason::length) : std::nullopt);
  const auto prompt = w.ids("abc");
  for (std::size_t i = 1; i < prompt.size(); ++i) {
    token.prompt_logprobs.push_back({.sequence = {},
                                     .token_id = prompt[i],
                                     .logprob = -1.5F,
                                     .top = {{w.ids("z")[0], -0.25F}, {prompt[i], -1.5F}}});
  }
  return token;
}

TEST(Echo, PutsThePromptBeforeTheAnswer) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":["abc","x y"],"echo":true})", 2);
  ASSERT_EQ(w.gang.count(), 2U);
  EXPECT_EQ(w.gang.at(0).request.params.prompt_logprobs, -1) << "nobody asked for figures";
  w.emit(0, {token_of(w.ids("d")[0], schemas::finish_reason::length)});
  w.emit(1, {token_of(w.ids("z")[0], schemas::finish_reason::length)});
  const json choices = answer->parsed()["choices"];
  EXPECT_EQ(choices[0]["text"], "abcd");
  EXPECT_EQ(choices[1]["text"], "x yz");
  EXPECT_TRUE(choices[0]["logprobs"].is_null());
}

TEST(Echo, SaysWhatPromptOfTokenIdsStandsFor) {
  world w;
  const json body = {{"prompt", w.ids("abc")}, {"echo", true}};
  const auto answer = w.ask("/v1/completions", body.dump());
  w.emit(0, {token_of(w.ids("d")[0], schemas::finish_reason::length)});
  EXPECT_EQ(answer->parsed()["choices"][0]["text"], "abcd");
}

TEST(Echo, HasTheLogprobsOfPromptAndAnswerInOneList) {
  world w;
  const json body = {{"prompt", w.ids("abc")}, {"echo", true}, {"logprobs", 2}};
  const auto answer = w.ask("/v1/completions", body.dump());
  EXPECT_EQ(w.gang.at(0).request.params.prompt_logprobs, 2);
  w.emit(0, {first_token(w, "d", true)});
  const json choice = answer->parsed()["choices"][0];
  const json& logprobs = choice["logprobs"];
  const std::size_t tokens = w.ids("abc").size() + 1;
  for (const char* const list : {"text_offset", "token_logprobs", "tokens", "top_logprobs"}) {
    EXPECT_EQ(logprobs[list].size(), tokens) << list;
  }
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null()) << "nothing comes before it";
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["token_logprobs"][1], -1.5);
  EXPECT_EQ(logprobs["token_logprobs"].back(), -0.5);
  EXPECT_EQ(logprobs["text_offset"].back(), 3);
  EXPECT_EQ(choice["text"], "abcd");
  EXPECT_FALSE(choice.contains("prompt_logprobs")) << "that is another field's matter";
}

// What evaluation harnesses ask for.
TEST(Echo, OfNoTokensGivesThePromptAlone) {
  world w;
  const json body = {{"prompt", w.ids("abc")}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 0}};
  const auto answer = w.ask("/v1/completions", body.dump());
  w.emit(0, {first_token(w, "d", true)});
  const json parsed = answer->parsed();
  const json& choice = parsed["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), w.ids("abc").size());
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(parsed["usage"]["completion_tokens"], 0);
}

TEST(Echo, IsStreamedWithTheFirstToken) {
  world w;
  const json body = {{"prompt", w.ids("abc")}, {"echo", true}, {"logprobs", 1}, {"stream", true}};
  const auto answer = w.ask("/v1/completions", body.dump());
  w.emit(0, {first_token(w, "d", false)});
  w.emit(0, {token_of(w.ids("e")[0], schemas::finish_reason::length)});
  const auto events = answer->events();
  ASSERT_GE(events.size(), 3U);
  const json& first = events[0]["choices"][0];
  EXPECT_EQ(first["text"], "abcd");
  EXPECT_EQ(first["logprobs"]["tokens"].size(), w.ids("abc").size() + 1);
  EXPECT_TRUE(first["logprobs"]["token_logprobs"][0].is_null());
  const json& second = events[1]["choices"][0];
  EXPECT_EQ(second["text"], "e");
  EXPECT_EQ(second["logprobs"]["text_offset"][0], 4);
  EXPECT_EQ(second["logprobs"]["token_logprobs"][0], -0.5);
}

TEST(PromptLogprobsField, HasVllmsShapeInBothApis) {
  for (const bool chat : {false, true}) {
    world w;
    json body = {{"prompt_logprobs", 2}, {"max_tokens", 1}};
    if (chat) {
      body["messages"] = {{{"role", "user"}, {"content", "abc"}}};
    } else {
      body["prompt"] = w.ids("abc");
    }
    const auto answer = w.ask(chat ? "/v1/chat/completions" : "/v1/completions", body.dump());
    EXPECT_EQ(w.gang.at(0).request.params.prompt_logprobs, 2);
    w.emit(0, {first_token(w, "d", true)});
    const json parsed = answer->parsed();
    const json& all = chat ? parsed["prompt_logprobs"] : parsed["choices"][0]["prompt_logprobs"];
    ASSERT_EQ(all.size(), w.ids("abc").size());
    EXPECT_TRUE(all[0].is_null());
    const std::int32_t own = w.ids("abc")[1];
    const std::int32_t other = w.ids("z")[0];
    EXPECT_EQ(all[1].size(), 2U);
    EXPECT_EQ(all[1][std::to_string(own)]["logprob"], -1.5);
    EXPECT_EQ(all[1][std::to_string(own)]["rank"], 2);
    EXPECT_EQ(all[1][std::to_string(other)]["rank"], 1);
    EXPECT_EQ(all[1][std::to_string(other)]["decoded_token"], "z");
  }
}

}  // namespace
}  // namespace troupe::serving::test
