// Text completions: kinds of prompts, shapes, several prompts at once, and the token endpoints.
#include <fmt/format.h>

#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

using schemas::finish_reason;

TEST(Completion, HasOpenAisFieldsAndNoOthers) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"model":"small","prompt":"Once"})");
  const actors::completion_request& got = w.gang.at(0).request;
  EXPECT_EQ(got.prompt_ids, w.ids("Once"));
  EXPECT_EQ(got.params.max_tokens, 16) << "OpenAI's default";
  w.emit_text(0, " upon");
  const json body = answer->parsed();
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_TRUE(body["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(
      body["choices"],
      json::array(
          {{{"index", 0}, {"text", " upon"}, {"logprobs", nullptr}, {"finish_reason", "length"}}}));
  EXPECT_EQ(body.size(), 7U) << body;
}

TEST(Completion, TakesEveryKindOfPrompt) {
  struct prompt_case {
    std::string prompt;
    std::size_t prompts;
  };
  world w;
  const std::vector<prompt_case> cases = {
      {R"("Once")", 1}, {R"(["Once","Twice"])", 2}, {"[5,6,7]", 1}, {"[[5,6],[7]]", 2}};
  for (const prompt_case& of : cases) {
    SCOPED_TRACE(of.prompt);
    const std::size_t first = w.gang.count();
    w.ask("/v1/completions", R"({"n":2,"prompt":)" + of.prompt + "}", of.prompts);
    EXPECT_EQ(w.gang.at(first).request.choices, 2U);
  }
  EXPECT_EQ(w.gang.at(3).request.prompt_ids, (std::vector<std::int32_t>{5, 6, 7}));
  EXPECT_EQ(w.gang.at(5).request.prompt_ids, (std::vector<std::int32_t>{7}));
}

TEST(Completion, NumbersTheChoicesOfSeveralPrompts) {
  world w;
  for (const bool stream : {false, true}) {
    const std::size_t first = w.gang.count();
    const auto answer =
        w.ask("/v1/completions",
              json({{"prompt", {"Once", "Twice"}}, {"n", 2}, {"stream", stream}}).dump(), 2);
    for (std::size_t prompt = 0; prompt < 2; ++prompt) {
      for (std::uint32_t choice = 0; choice < 2; ++choice) {
        w.emit_text(first + prompt, std::to_string(prompt * 2 + choice), choice);
      }
      w.end(first + prompt);
    }
    ASSERT_TRUE(answer->complete);
    std::array<std::string, 4> texts;
    if (stream) {
      for (const json& event : answer->events()) {
        if (!event.is_object()) continue;
        EXPECT_EQ(event["object"], "text_completion");
        texts.at(event["choices"][0]["index"].get<std::size_t>()) += event["choices"][0]["text"];
      }
    } else {
      const json body = answer->parsed();
      for (const json& choice : body["choices"]) {
        texts.at(choice["index"].get<std::size_t>()) += choice["text"];
      }
      EXPECT_EQ(answer->parsed()["usage"]["prompt_tokens"],
                w.ids("Once").size() + w.ids("Twice").size());
    }
    EXPECT_EQ(texts, (std::array<std::string, 4>{"0", "1", "2", "3"}));
  }
}

TEST(Completion, AdmitsAllPromptsOrNone) {
  world w;
  w.gang.refusal =
      base::error{base::error_code::resource_exhausted, "the queue is full", "t", true};
  w.gang.admit_before_refusal = 1;
  const auto answer = w.post("/v1/completions", R"({"prompt":["Once","Twice"]})");
  EXPECT_EQ(answer->status, 503);
  EXPECT_EQ(answer->header("retry-after"), "1");
  EXPECT_TRUE(w.gang.cancelled(0));
  EXPECT_TRUE(w.http.run_until([&] { return w.server->open_requests() == 0; }));
}

TEST(Completion, GivesLogprobsInTheFourLists) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":"a","logprobs":1})");
  const std::vector<std::string> pieces = {"x", "é", "y"};
  std::vector<std::int32_t> all;
  for (const std::string& piece : pieces) {
    for (const std::int32_t id : w.ids(piece)) all.push_back(id);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto token =
        token_of(all[i], i + 1 == all.size() ? std::optional(finish_reason::length) : std::nullopt);
    token.token.top = {{w.ids("z")[0], -0.25F}};
    w.emit(0, {token});
  }
  const json logprobs = answer->parsed()["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs.size(), 4U) << logprobs;
  for (const char* const list : {"text_offset", "token_logprobs", "tokens", "top_logprobs"}) {
    EXPECT_EQ(logprobs[list].size(), all.size()) << list;
  }
  EXPECT_EQ(logprobs["tokens"][0], "x");
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_EQ(logprobs["text_offset"].back(), 2) << "characters, not bytes";
  EXPECT_EQ(logprobs["token_logprobs"][0], -0.5);
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"x", -0.5}, {"z", -0.25}}))
      << "the token itself is always among them";
}

TEST(Tokenize, AnswersInVllmsShape) {
  world w;
  const json text = w.post("/tokenize", R"({"model":"small","prompt":"Once upon"})")->parsed();
  EXPECT_EQ(text["tokens"], json(w.ids("Once upon")));
  EXPECT_EQ(text["count"], w.ids("Once upon").size());
  EXPECT_EQ(text["max_model_len"], 512);
  EXPECT_EQ(text["token_strs"], nullptr);
  const json chat = w.post("/tokenize",
                           R"({"messages":[{"role":"user","content":"a"}],
                               "add_generation_prompt":false,"return_token_strs":true})")
                        ->parsed();
  EXPECT_EQ(chat["token_strs"].size(), chat["count"].get<std::size_t>());
  const json back = w.post("/detokenize", json({{"tokens", chat["tokens"]}}).dump())->parsed();
  EXPECT_EQ(back, json({{"prompt",
                         "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
                         "<|im_start|>user\na<|im_end|>\n"}}));
}

TEST(Tokenize, NamesWhatIsWrong) {
  world w;
  EXPECT_EQ(w.post("/tokenize", "{}")->parsed()["error"]["param"], "prompt");
  EXPECT_EQ(w.post("/detokenize", "{}")->parsed()["error"]["param"], "tokens");
  EXPECT_EQ(w.post("/detokenize", R"({"tokens":[1,800]})")->parsed()["error"]["param"],
            "tokens[1]");
  EXPECT_EQ(w.post("/tokenize", R"({"model":"big","prompt":"a"})")->status, 404);
}

TEST(Completion, BestOfGivesTheChoicesWhoseTokensWereMostLikely) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":"a","n":2,"best_of":4})");
  EXPECT_EQ(w.gang.at(0).request.choices, 4U);
  const auto token = [&](std::uint32_t choice, const char* text, float logprob, bool last) {
    auto of = token_of(w.ids(text)[0], last ? std::optional(finish_reason::length) : std::nullopt);
    of.choice = choice;
    of.token.logprob = logprob;
    w.emit(0, {of});
  };
  token(0, "w", -3.0F, true);
  token(1, "x", -1.0F, false);  // on average less likely than choice 3
  token(2, "y", -0.5F, true);
  token(3, "z", -0.75F, true);
  token(1, "x", -1.0F, true);
  w.end(0);
  const json body = answer->parsed();
  ASSERT_EQ(body["choices"].size(), 2U);
  EXPECT_EQ(body["choices"][0]["text"], "y");
  EXPECT_EQ(body["choices"][0]["index"], 0);
  EXPECT_EQ(body["choices"][1]["text"], "z");
  EXPECT_EQ(body["choices"][1]["index"], 1);
  EXPECT_EQ(body["usage"]["completion_tokens"], 5) << "all that were computed";
}

TEST(Completion, UsageTellsHowMuchOfThePromptsWasCached) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":["a","b"],"n":2})", 2);
  for (const std::size_t prompt : {0U, 1U}) {
    for (const std::uint32_t choice : {0U, 1U}) {
      auto token = token_of(w.ids("x")[0], finish_reason::length);
      token.choice = choice;
      // The second choice finds what the first has computed: that is nobody's saving.
      token.cached_tokens = choice == 0 ? 16 : 32;
      w.emit(prompt, {token});
    }
    w.end(prompt);
  }
  EXPECT_EQ(answer->parsed()["usage"]["prompt_tokens_details"]["cached_tokens"], 32);
}

TEST(Completion, ParametersThatChangeLogitsReachTheGang) {
  world w;
  w.ask("/v1/completions",
        R"({"prompt":"a","presence_penalty":0.5,"frequency_penalty":-1,"repetition_penalty":1.5,)"
        R"("logit_bias":{"7":-3},"allowed_token_ids":[1,7],"bad_words":["x"],"min_tokens":2,)"
        R"("min_p":0.25,"cache_salt":"mine"})");
  const actors::completion_request request = w.gang.at(0).request;
  EXPECT_EQ(request.params.min_p, 0.25F);
  EXPECT_EQ(request.scope.salt, "mine");
  ASSERT_TRUE(request.params.logits);
  const schemas::logit_params& logits = *request.params.logits;
  EXPECT_EQ(logits.presence_penalty, 0.5F);
  EXPECT_EQ(logits.frequency_penalty, -1.0F);
  EXPECT_EQ(logits.repetition_penalty, 1.5F);
  EXPECT_EQ(logits.logit_bias, (std::vector<schemas::token_bias>{{7, -3.0F}}));
  EXPECT_EQ(logits.allowed_token_ids, (std::vector<std::int32_t>{1, 7}));
  EXPECT_EQ(logits.min_tokens, 2);
  EXPECT_EQ(logits.bad_words, (std::vector<std::vector<std::int32_t>>{w.ids("x"), w.ids(" x")}));
  w.ask("/v1/completions", R"({"prompt":"a","presence_penalty":0,"logit_bias":{}})");
  EXPECT_FALSE(w.gang.at(1).request.params.logits) << "nothing is changed";
}

TEST(Completion, TheFormOfAnAnswerReachesTheGang) {
  world w;
  w.ask("/v1/completions", R"({"prompt":"a","guided_choice":["x","y"],"n":2})");
  w.ask("/v1/completions", R"({"prompt":"a","response_format":{"type":"text"}})");
  const auto grammar = w.gang.at(0).request.params.grammar;
  ASSERT_TRUE(grammar);
  EXPECT_EQ(grammar->of, schemas::output_grammar::kind::choice);
  EXPECT_EQ(grammar->text, R"(["x","y"])");
  EXPECT_FALSE(w.gang.at(1).request.params.grammar);
}

// A grammar that is new is compiled beside what else comes, however long it takes.
TEST(Completion, ANewGrammarHoldsNobodyUp) {
  std::string slow = R"({"prompt":"a","guided_json":{"type":"object","properties":{)";
  for (int i = 0; i < 400; ++i) {
    slow += fmt::format(R"({}"p{}":{{"type":"string","pattern":"^[a-z]{{1,40}}{}$"}})",
                        i > 0 ? "," : "", i, i);
  }
  slow += "}}}";
  world w;
  const auto with_grammar = w.begin("POST", "/v1/completions", slow);
  const auto plain = w.begin("POST", "/v1/completions", R"({"prompt":"a"})");
  ASSERT_TRUE(w.http.run_until([&] { return w.gang.count() == 1 || with_grammar->ended(); }));
  ASSERT_EQ(w.gang.count(), 1U) << with_grammar->body;
  EXPECT_FALSE(w.gang.at(0).request.params.grammar) << "the plain one is first";
  EXPECT_TRUE(w.http.run_until([&] { return w.gang.count() == 2 || with_grammar->ended(); }));
}

// At every depth, and the same by each of the three ways to send one.
TEST(Completion, ASchemaKeepsTheOrderItWasSentIn) {
  const std::string schema =
      R"({"type":"object","properties":{"zeta":{"type":"object","properties":{"b":{"type":"null"},)"
      R"("a":{"type":"null"}}},"alpha":{"enum":["y","x"]}},"required":["zeta","alpha"]})";
  world w;
  w.ask("/v1/completions", R"({"prompt":"a","guided_json":)" + schema + "}");
  w.ask("/v1/completions", R"({"prompt":"a","structured_outputs":{"json":)" + schema + "}}");
  w.ask("/v1/completions",
        R"({"prompt":"a","response_format":{"type":"json_schema","json_schema":{"schema":)" +
            schema + "}}}");
  for (const std::size_t at : {0U, 1U, 2U}) {
    const auto grammar = w.gang.at(at).request.params.grammar;
    ASSERT_TRUE(grammar);
    EXPECT_EQ(grammar->text, schema) << "way " << at;
  }
}

TEST(Completion, NoFormIsPromisedWithoutATokenizer) {
  world w([](openai_server_options& options) { options.grammars = nullptr; });
  const auto answer = w.post("/v1/completions", R"({"prompt":"a","guided_regex":"a"})");
  EXPECT_EQ(answer->status, 400);
  EXPECT_EQ(answer->parsed()["error"]["param"], "guided_regex");
}

TEST(Completion, NoStopStringIsLookedForBeforeMinTokens) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":"a","stop":"x","min_tokens":2})");
  for (const char* const text : {"x", "y", "x"}) w.emit(0, w.ids(text)[0]);
  w.end(0);
  EXPECT_EQ(answer->parsed()["choices"][0]["text"], "xy");
  EXPECT_EQ(answer->parsed()["choices"][0]["finish_reason"], "stop");
}

}  // namespace
}  // namespace troupe::serving::test
