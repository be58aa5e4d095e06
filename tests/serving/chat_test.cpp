// Chat completions, whole and streamed: shapes, text, stops, choices, logprobs, errors.
#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

using schemas::finish_reason;

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> out;
  for (const auto& item : object.items()) out.push_back(item.key());
  return out;  // sorted: json keeps its keys in order
}

std::string text_of(const std::vector<json>& events, int index = 0) {
  std::string out;
  for (const json& event : events) {
    if (!event.is_object()) continue;
    for (const json& choice : event.at("choices")) {
      if (choice.at("index") == index) out += choice.at("delta").value("content", "");
    }
  }
  return out;
}

TEST(ChatCompletion, HasOpenAisFieldsAndNoOthers) {
  world w;
  const auto answer = w.ask_chat({{"model", "org/small"}, {"max_tokens", 50}});
  w.emit_text(0, "Hello there");
  w.end(0);
  ASSERT_EQ(answer->status, 200) << answer->body;
  EXPECT_EQ(answer->header("content-type"), "application/json");
  const json body = answer->parsed();
  EXPECT_EQ(keys_of(body), (std::vector<std::string>{"choices", "created", "id", "model", "object",
                                                     "system_fingerprint", "usage"}));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "small");
  EXPECT_EQ(body["created"], 1'700'000'100);
  EXPECT_TRUE(body["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(body["id"], answer->header("x-request-id"));
  EXPECT_TRUE(body["system_fingerprint"].get<std::string>().starts_with("fp_"));
  ASSERT_EQ(body["choices"].size(), 1U);
  const json choice = body["choices"][0];
  EXPECT_EQ(keys_of(choice),
            (std::vector<std::string>{"finish_reason", "index", "logprobs", "message"}));
  EXPECT_EQ(choice["message"],
            json({{"role", "assistant"}, {"content", "Hello there"}, {"refusal", nullptr}}));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"], nullptr);
  const auto prompt = static_cast<std::int64_t>(w.gang.at(0).request.prompt_ids.size());
  const auto completion = static_cast<std::int64_t>(w.ids("Hello there").size());
  EXPECT_EQ(body["usage"], json({{"prompt_tokens", prompt},
                                 {"completion_tokens", completion},
                                 {"total_tokens", prompt + completion},
                                 {"prompt_tokens_details", {{"cached_tokens", 0}}}}));
}

TEST(ChatCompletion, HandsTheTemplatesTextToTheGang) {
  world w;
  const auto answer = w.ask("/v1/chat/completions",
                            R"({"messages":[{"role":"developer","content":"Be brief."},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
          "temperature":0.25,"top_p":0.5,"top_k":7,"seed":-3,"max_completion_tokens":9,
          "max_tokens":99,"n":2,"stop_token_ids":[5,6],"ignore_eos":true})");
  const actors::completion_request& got = w.gang.at(0).request;
  EXPECT_EQ(w.tokenizer.decode(got.prompt_ids, {.skip_special_tokens = false}).value(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(got.params.temperature, 0.25F);
  EXPECT_EQ(got.params.top_p, 0.5F);
  EXPECT_EQ(got.params.top_k, 7);
  EXPECT_EQ(got.params.seed, static_cast<std::uint64_t>(-3));
  EXPECT_EQ(got.params.max_tokens, 9);
  EXPECT_EQ(got.params.stop_token_ids, (std::vector<std::int32_t>{5, 6}));
  EXPECT_TRUE(got.params.ignore_eos);
  EXPECT_EQ(got.choices, 2U);
}

TEST(ChatCompletion, FillsWhatIsLeftOut) {
  world w([](openai_server_options& options) { options.model.temperature = 0.6F; });
  w.ask_chat();
  const actors::completion_request& got = w.gang.at(0).request;
  EXPECT_EQ(got.params.temperature, 0.6F);
  EXPECT_EQ(got.params.seed, w.seed);
  EXPECT_EQ(got.params.logprobs, -1);
  EXPECT_EQ(got.choices, 1U);
  // What is left of the context.
  EXPECT_EQ(got.params.max_tokens, 512 - static_cast<std::int64_t>(got.prompt_ids.size()));
}

TEST(ChatStream, BeginsWithTheRoleAndEndsWithDone) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  EXPECT_EQ(answer->status, 0) << "nothing is sent before the first token";
  w.emit_text(0, "Hello there");
  w.end(0);
  ASSERT_EQ(answer->status, 200);
  EXPECT_TRUE(answer->complete);
  EXPECT_EQ(answer->header("content-type"), "text/event-stream; charset=utf-8");
  const auto events = answer->events();
  ASSERT_GE(events.size(), 4U);
  EXPECT_EQ(keys_of(events[0]),
            (std::vector<std::string>{"choices", "created", "id", "model", "object",
                                      "system_fingerprint", "usage"}));
  EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(events[0]["choices"][0]["delta"], json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(events[0]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(events[0]["usage"], nullptr);
  EXPECT_EQ(text_of(events), "Hello there");
  EXPECT_EQ(events.back(), "[DONE]");
  const json usage = events[events.size() - 2];
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["completion_tokens"], w.ids("Hello there").size());
  EXPECT_EQ(events[events.size() - 3]["choices"][0]["finish_reason"], "length");
  for (const json& event : events) {
    if (event.is_object()) {
      EXPECT_EQ(event["id"], events[0]["id"]);
    }
  }
}

TEST(ChatStream, LeavesUsageOutUnlessAsked) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}});
  w.emit_text(0, "Hello");
  for (const json& event : answer->events()) {
    if (event.is_object()) {
      EXPECT_FALSE(event.contains("usage")) << event;
    }
  }
}

TEST(ChatStream, TellsUsageInEveryChunkWhenAsked) {
  world w;
  const auto answer =
      w.ask_chat({{"stream", true},
                  {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}});
  w.emit_text(0, "Hello there");
  std::int64_t before = -1;
  for (const json& event : answer->events()) {
    if (!event.is_object()) continue;
    EXPECT_GE(event["usage"]["completion_tokens"].get<std::int64_t>(), before);
    before = event["usage"]["completion_tokens"].get<std::int64_t>();
  }
  EXPECT_EQ(before, static_cast<std::int64_t>(w.ids("Hello there").size()));
}

TEST(ChatStream, SendsTheTokensOfOneWakeInOneWrite) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}});
  const auto all = w.ids("one two three four");
  ASSERT_GT(all.size(), 4U);
  // The HTTP thread sleeps while they come.
  for (const std::int32_t id : all) {
    const actors::choice_token token = token_of(id);
    w.gang.at(0).sink->on_tokens({&token, 1});
  }
  EXPECT_EQ(w.http.run(), 1U) << "one post for all of them";
  EXPECT_EQ(answer->writes, 1U);
  EXPECT_EQ(text_of(answer->events()), "one two three four");
  EXPECT_GT(answer->events().size(), 4U) << "each token is an event of its own";
}

TEST(ChatStream, NeverSplitsACharacter) {
  world w;
  const std::string text = "né 🙂 日本";
  ASSERT_GT(w.ids(text).size(), 8U) << "the characters must be split over tokens";
  const auto answer = w.ask_chat({{"stream", true}});
  w.emit_text(0, text);
  const auto events = answer->events();  // would not parse with half a character
  EXPECT_EQ(text_of(events), text);
  EXPECT_EQ(answer->body.find("\xEF\xBF\xBD"), std::string::npos);
}

// Cuts a text in every way that tokens can, by handing over its bytes one token each.
TEST(ChatStream, FindsStopStringsAcrossTokens) {
  struct stop_case {
    std::string text;
    std::vector<std::string> stop;
    std::string expected;
    bool stopped;
  };
  const std::vector<stop_case> cases = {
      {"abc def ghi", {"def"}, "abc ", true}, {"abc def ghi", {"xyz", "f g"}, "abc de", true},
      {"abc de", {"def"}, "abc de", false},  // what was held back comes at the end
      {"aaab", {"aab"}, "a", true},           {"one\n\ntwo", {"\n\n"}, "one", true},
      {"stop", {"stop"}, "", true},
  };
  for (const stop_case& of : cases) {
    for (const bool stream : {true, false}) {
      SCOPED_TRACE(of.text + (stream ? " streamed" : " whole"));
      world w;
      const auto answer = w.ask_chat({{"stream", stream}, {"stop", of.stop}});
      std::vector<std::int32_t> bytes;
      for (const char c : of.text) {
        const auto id = w.ids(std::string(1, c));
        ASSERT_EQ(id.size(), 1U);
        bytes.push_back(id[0]);
      }
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        const bool last = i + 1 == bytes.size();
        w.emit(0, bytes[i], last ? std::optional(finish_reason::length) : std::nullopt);
      }
      ASSERT_TRUE(answer->complete);
      const std::string reason = of.stopped ? "stop" : "length";
      if (stream) {
        const auto events = answer->events();
        EXPECT_EQ(text_of(events), of.expected);
        EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], reason);
      } else {
        EXPECT_EQ(answer->parsed()["choices"][0]["message"]["content"], of.expected);
        EXPECT_EQ(answer->parsed()["choices"][0]["finish_reason"], reason);
      }
    }
  }
}

TEST(ChatCompletion, TellsTheGangThatAStopStringWasFound) {
  world w;
  const auto answer = w.ask_chat({{"n", 2}, {"stop", "b"}});
  w.emit(0, w.ids("a")[0], {}, 0);
  w.emit(0, w.ids("b")[0], {}, 0);
  EXPECT_TRUE(w.gang.finished(0, 0));
  EXPECT_FALSE(w.gang.finished(0, 1));
  EXPECT_FALSE(w.gang.cancelled(0));
  w.emit(0, w.ids("c")[0], {}, 0);  // on its way already: counts for nothing
  w.emit_text(0, "ac", 1);
  ASSERT_TRUE(answer->complete);
  const json body = answer->parsed();
  EXPECT_EQ(body["choices"][0]["message"]["content"], "a");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][1]["message"]["content"], "ac");
  EXPECT_EQ(body["usage"]["completion_tokens"], 2 + w.ids("ac").size());
}

TEST(ChatCompletion, KeepsTheEndTokenOutOfTheTextButCountsIt) {
  world w;
  const std::int32_t end = w.tokenizer.token_to_id("<|im_end|>").value();
  for (const bool skip : {true, false}) {
    const auto answer = w.ask_chat({{"skip_special_tokens", skip}});
    const std::size_t request = w.gang.count() - 1;
    w.emit(request, w.ids("a")[0]);
    w.emit(request, end, finish_reason::stop);
    const json body = answer->parsed();
    EXPECT_EQ(body["choices"][0]["message"]["content"], "a");
    EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(body["usage"]["completion_tokens"], 2);
  }
}

TEST(ChatStream, KeepsChoicesApart) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}, {"n", 3}});
  const auto a = w.ids("alpha");
  const auto b = w.ids("bravo");
  const std::size_t steps = std::max(a.size(), b.size());
  for (std::size_t i = 0; i < steps; ++i) {
    std::vector<actors::choice_token> step;
    const auto token = [&](std::uint32_t choice, const std::vector<std::int32_t>& of) {
      if (i >= of.size()) return;
      const bool last = i + 1 == of.size();
      step.push_back(
          token_of(of[i], last ? std::optional(finish_reason::length) : std::nullopt, choice));
    };
    token(0, a);
    token(1, b);
    token(2, a);
    w.emit(0, step);
  }
  w.end(0);
  ASSERT_TRUE(answer->complete);
  const auto events = answer->events();
  EXPECT_EQ(text_of(events, 0), "alpha");
  EXPECT_EQ(text_of(events, 1), "bravo");
  EXPECT_EQ(text_of(events, 2), "alpha");
  int roles = 0;
  for (const json& event : events) {
    if (event.is_object() && event["choices"][0]["delta"].contains("role")) ++roles;
  }
  EXPECT_EQ(roles, 3);
}

TEST(ChatCompletion, GivesLogprobsWithBytes) {
  world w;
  const auto answer = w.ask_chat({{"logprobs", true}, {"top_logprobs", 2}});
  EXPECT_EQ(w.gang.at(0).request.params.logprobs, 2);
  const auto all = w.ids("a 🙂");
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool last = i + 1 == all.size();
    auto token = token_of(all[i], last ? std::optional(finish_reason::length) : std::nullopt);
    token.token.logprob = -0.25F;
    token.token.top = {{all[i], -0.25F}, {w.ids("z")[0], -1.5F}};
    w.emit(0, {token});
  }
  const json choice = answer->parsed()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "a 🙂");
  const json content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), all.size());
  EXPECT_EQ(choice["logprobs"]["refusal"], nullptr);
  std::string bytes;
  for (const json& token : content) {
    EXPECT_EQ(keys_of(token),
              (std::vector<std::string>{"bytes", "logprob", "token", "top_logprobs"}));
    EXPECT_EQ(token["logprob"], -0.25);
    ASSERT_EQ(token["top_logprobs"].size(), 2U);
    EXPECT_EQ(token["top_logprobs"][0]["token"], token["token"]);
    EXPECT_EQ(token["top_logprobs"][1],
              json({{"token", "z"}, {"logprob", -1.5}, {"bytes", {122}}}));
    for (const json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
  }
  EXPECT_EQ(bytes, "a 🙂")
      << "the bytes of all tokens are the text, also where a character is split";
  EXPECT_EQ(content.back()["token"].get<std::string>().substr(0, 2), "\\x");
}

TEST(ChatStream, GivesEachTokensLogprobOnce) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}, {"logprobs", true}, {"stop", "zzz"}});
  const auto all =
      w.ids("a 🙂 zz b");  // held back: a part of a character, a part of a stop string
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool last = i + 1 == all.size();
    w.emit(0, all[i], last ? std::optional(finish_reason::length) : std::nullopt);
  }
  std::string bytes;
  std::size_t tokens = 0;
  for (const json& event : answer->events()) {
    if (!event.is_object() || event["choices"][0]["logprobs"].is_null()) continue;
    for (const json& token : event["choices"][0]["logprobs"]["content"]) {
      ++tokens;
      EXPECT_EQ(token["top_logprobs"], json::array());
      for (const json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
    }
  }
  EXPECT_EQ(tokens, all.size());
  EXPECT_EQ(bytes, "a 🙂 zz b");
}

TEST(ChatCompletion, WritesALogprobThatIsNoNumberAsOpenAiDoes) {
  world w;
  const auto answer = w.ask_chat({{"logprobs", true}});
  auto token = token_of(10, finish_reason::length);
  token.token.logprob = -std::numeric_limits<float>::infinity();
  w.emit(0, {token});
  EXPECT_EQ(answer->parsed()["choices"][0]["logprobs"]["content"][0]["logprob"], -9999.0);
}

TEST(ChatCompletion, GivesTokenIdsWhenAsked) {
  world w;
  const auto answer = w.ask_chat({{"return_token_ids", true}});
  w.emit_text(0, "Hello");
  EXPECT_EQ(answer->parsed()["prompt_token_ids"], json(w.gang.at(0).request.prompt_ids));
  EXPECT_EQ(answer->parsed()["choices"][0]["token_ids"], json(w.ids("Hello")));
}

TEST(ChatCompletion, ServesAModelWithoutTokenizerByIds) {
  world w([](openai_server_options& options) {
    options.tokenizer = nullptr;
    options.chat = nullptr;
  });
  EXPECT_EQ(w.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})")
                ->parsed()["error"]["param"],
            "messages");
  const auto answer = w.ask("/v1/completions", R"({"prompt":[1,2,3]})");
  w.emit(0, 9, finish_reason::length);
  EXPECT_EQ(answer->parsed()["choices"][0]["token_ids"], json({9}));
  EXPECT_EQ(answer->parsed()["choices"][0]["text"], "");
}

}  // namespace
}  // namespace troupe::serving::test
