// Every parameter with values that are taken and values that are refused, naming the parameter.
#include <random>

#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

struct field_case {
  std::string fields;     // of the request, besides messages or prompt
  std::string parameter;  // that the refusal names; empty: taken
};

std::string chat_body(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"Hi"}])" + (fields.empty() ? "" : "," + fields) +
         "}";
}
std::string text_body(const std::string& fields) {
  return R"({"prompt":"Hi")" + (fields.empty() ? "" : "," + fields) + "}";
}

void expect_refused(const fake_response& answer, const std::string& parameter) {
  ASSERT_EQ(answer.status, 400) << answer.body.substr(0, 300);
  const json error = answer.parsed()["error"];
  EXPECT_EQ(error.size(), 4U) << error;
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error["param"], parameter) << error;
  EXPECT_TRUE(error["code"].is_string()) << error;
  const std::string message = error["message"];
  EXPECT_TRUE(message.starts_with(parameter + ": ")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), 400U) << message;
}

void expect_case(world& w, const std::string& path, const std::string& body, const field_case& of) {
  SCOPED_TRACE(path + " " + of.fields.substr(0, 200));
  if (of.parameter.empty()) {
    const auto answer = w.ask(path, body);
    EXPECT_EQ(answer->status, 0) << answer->body;
    answer->leave();
    w.http.run();
  } else {
    expect_refused(*w.post(path, body), of.parameter);
  }
}

// Alike in both APIs.
const std::vector<field_case>& common_cases() {
  static const std::vector<field_case> cases = {
      {R"("temperature":0)", ""},
      {R"("temperature":2.0)", ""},
      {R"("temperature":null)", ""},
      {R"("temperature":2.01)", "temperature"},
      {R"("temperature":-0.01)", "temperature"},
      {R"("temperature":"1")", "temperature"},
      {R"("temperature":true)", "temperature"},
      {R"("top_p":1)", ""},
      {R"("top_p":0.001)", ""},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1e-60)", "top_p"},
      {R"("top_p":1.5)", "top_p"},
      {R"("top_p":[])", "top_p"},
      {R"("top_k":-1)", ""},
      {R"("top_k":0)", ""},
      {R"("top_k":2147483647)", ""},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":2147483648)", "top_k"},
      {R"("top_k":1.5)", "top_k"},
      {R"("seed":-9223372036854775808)", ""},
      {R"("seed":9223372036854775807)", ""},
      {R"("seed":9223372036854775808)", "seed"},
      {R"("seed":18446744073709551616)", "seed"},
      {R"("seed":"7")", "seed"},
      {R"("max_tokens":1)", ""},
      {R"("max_tokens":400)", ""},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":513)", "max_tokens"},
      {R"("max_tokens":9223372036854775807)", "max_tokens"},
      {R"("max_tokens":99999999999999999999)", "max_tokens"},
      {R"("max_tokens":16.0)", "max_tokens"},
      {R"("n":1)", ""},
      {R"("n":128)", ""},
      {R"("n":0)", "n"},
      {R"("n":129)", "n"},
      {R"("n":4294967297)", "n"},
      {R"("n":-1)", "n"},
      {R"("stop":null)", ""},
      {R"("stop":"a")", ""},
      {R"("stop":[])", ""},
      {R"("stop":["a","b","c","d","e"])", ""},
      {R"("stop":"")", "stop"},
      {R"("stop":["a",""])", "stop[1]"},
      {R"("stop":[1])", "stop[0]"},
      {R"("stop":5)", "stop"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
       "stop"},
      {R"("stop":")" + std::string(1025, 'x') + "\"", "stop"},
      {R"("stop_token_ids":[0,799])", ""},
      {R"("stop_token_ids":[800])", "stop_token_ids[0]"},
      {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]"},
      {R"("stop_token_ids":5)", "stop_token_ids"},
      {R"("ignore_eos":true)", ""},
      {R"("ignore_eos":1)", "ignore_eos"},
      {R"("stream":"yes")", "stream"},
      {R"("stream":true,"stream_options":{"include_usage":true})", ""},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("stream":true,"stream_options":true)", "stream_options"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("skip_special_tokens":0)", "skip_special_tokens"},
      {R"("user":"me")", ""},
      {R"("user":7)", "user"},
  };
  return cases;
}

// What changes logits, and what is shared in the cache.
const std::vector<field_case>& logit_cases() {
  static const std::vector<field_case> cases = {
      {R"("presence_penalty":-2,"frequency_penalty":2)", ""},
      {R"("presence_penalty":2.1)", "presence_penalty"},
      {R"("frequency_penalty":"1")", "frequency_penalty"},
      {R"("repetition_penalty":1.1)", ""},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("repetition_penalty":1000)", "repetition_penalty"},
      {R"("min_p":0.1)", ""},
      {R"("min_p":1.1)", "min_p"},
      {R"("min_p":-1)", "min_p"},
      {R"("max_tokens":9,"min_tokens":9)", ""},
      {R"("max_tokens":9,"min_tokens":10)", "min_tokens"},
      {R"("min_tokens":-1)", "min_tokens"},
      {R"("logit_bias":{"5":1,"799":-100})", ""},
      {R"("logit_bias":{"800":1})", "logit_bias"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("logit_bias":{"5":1,"05":2})", "logit_bias"},
      {R"("logit_bias":{"5":101})", "logit_bias.5"},
      {R"("logit_bias":{"5":"1"})", "logit_bias.5"},
      {R"("logit_bias":[1])", "logit_bias"},
      {R"("allowed_token_ids":[0,799])", ""},
      {R"("allowed_token_ids":[])", "allowed_token_ids"},
      {R"("allowed_token_ids":[0,800])", "allowed_token_ids[1]"},
      {R"("bad_words":["no"])", ""},
      {R"("bad_words":["no",""])", "bad_words[1]"},
      {R"("bad_words":["no",5])", "bad_words[1]"},
      {R"("bad_words":"no")", "bad_words"},
      {R"("cache_salt":"mine")", ""},
      {R"("cache_salt":"")", "cache_salt"},
      {R"("cache_salt":5)", "cache_salt"},
  };
  return cases;
}

// The form of an answer; the grammars are really compiled.
const std::vector<field_case>& form_cases() {
  static const std::vector<field_case> cases = {
      {R"("response_format":{"type":"text"})", ""},
      {R"("response_format":{"type":"json_object"})", ""},
      {R"("response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{}}})", ""},
      {R"("response_format":{"type":"json_schema","json_schema":{"name":"a"}})",
       "response_format.json_schema.schema"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
      {R"("response_format":{"type":"json_schema","json_schema":{"schema":{"type":"x"}}})",
       "response_format.json_schema.schema"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("response_format":"json_object")", "response_format"},
      {R"("structured_outputs":{"regex":"[a-z]+"})", ""},
      {R"("structured_outputs":{"regex":"(a"})", "structured_outputs.regex"},
      {R"("structured_outputs":{"regex":5})", "structured_outputs.regex"},
      {R"("structured_outputs":{"choice":["a","b"]})", ""},
      {R"("structured_outputs":{"choice":[]})", "structured_outputs.choice"},
      {R"("structured_outputs":{"choice":"a"})", "structured_outputs.choice"},
      {R"("structured_outputs":{"grammar":"start: \"a\""})", ""},
      {R"("structured_outputs":{"grammar":"start: b"})", "structured_outputs.grammar"},
      {R"("structured_outputs":{"json_object":true})", ""},
      {R"("structured_outputs":{"json":{"type":"object"},"regex":"a"})",
       "structured_outputs.regex"},
      {R"("structured_outputs":[])", "structured_outputs"},
      {R"("guided_json":{"type":"object"})", ""},
      {R"("guided_json":"{\"type\":\"object\"}")", ""},
      {R"("guided_json":7)", "guided_json"},
      {R"("guided_regex":"a","guided_choice":["a"])", "guided_choice"},
      {R"("response_format":{"type":"json_object"},"guided_grammar":"start: \"a\"")",
       "guided_grammar"},
  };
  return cases;
}

// What OpenAI or vLLM know and this server cannot do.
const std::vector<field_case>& unsupported_cases() {
  static const std::vector<field_case> cases = {
      // Nothing asked for.
      {R"("presence_penalty":0,"frequency_penalty":0.0,"repetition_penalty":1.0,"min_p":0)", ""},
      {R"("logit_bias":{},"response_format":{"type":"text"},"best_of":1,"echo":false)", ""},
      {R"("min_tokens":0,"length_penalty":1,"use_beam_search":false,"prompt_logprobs":null)", ""},
      // Asked for.
      {R"("echo":1)", "echo"},
      {R"("prompt_logprobs":21)", "prompt_logprobs"},
      {R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("include_stop_str_in_output":true)", "include_stop_str_in_output"},
      // Nobody's.
      {R"("no_such_field":{"a":[1]})", ""},
  };
  return cases;
}

TEST(Validation, ChecksWhatBothApisShare) {
  world w;
  for (const auto* const cases :
       {&common_cases(), &logit_cases(), &form_cases(), &unsupported_cases()}) {
    for (const field_case& of : *cases) {
      expect_case(w, "/v1/chat/completions", chat_body(of.fields), of);
      expect_case(w, "/v1/completions", text_body(of.fields), of);
    }
  }
}

TEST(Validation, ChecksChatParameters) {
  const std::vector<field_case> cases = {
      {R"("max_completion_tokens":5)", ""},
      {R"("max_completion_tokens":0)", "max_completion_tokens"},
      {R"("max_completion_tokens":1000)", "max_completion_tokens"},
      {R"("logprobs":true,"top_logprobs":20)", ""},
      {R"("logprobs":false,"top_logprobs":0)", ""},
      {R"("logprobs":1)", "logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
      {R"("top_logprobs":2)", "top_logprobs"},
      {R"("best_of":2)", "best_of"},
      {R"("tools":[])", ""},
      {R"("tools":[{"type":"function","function":{"name":"f"}}])", "tools"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("chat_template":"{{ messages }}")", "chat_template"},
      {R"("chat_template_kwargs":{"enable_thinking":false})", ""},
      {R"("chat_template_kwargs":{"messages":[]})", "messages"},
      {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
      {R"("reasoning_effort":"low")", ""},
      {R"("reasoning_effort":"huge")", "reasoning_effort"},
      {R"("modalities":["text","audio"])", "modalities"},
      {R"("add_generation_prompt":false)", ""},
  };
  world w;
  for (const field_case& of : cases) {
    expect_case(w, "/v1/chat/completions", chat_body(of.fields), of);
  }
}

TEST(Validation, ChecksTextParameters) {
  const std::vector<field_case> cases = {
      {R"("logprobs":0)", ""},
      {R"("logprobs":20)", ""},
      {R"("logprobs":21)", "logprobs"},
      {R"("logprobs":true)", "logprobs"},
      {R"("best_of":2)", ""},
      {R"("n":3,"best_of":2)", "best_of"},
      {R"("best_of":129)", "best_of"},
      {R"("best_of":2,"stream":true)", "best_of"},
      {R"("n":2,"best_of":2,"stream":true)", ""},
      {R"("suffix":"")", ""},
      {R"("suffix":"x")", "suffix"},
      {R"("add_special_tokens":false)", ""},
      {R"("add_special_tokens":0)", "add_special_tokens"},
  };
  world w;
  for (const field_case& of : cases) {
    expect_case(w, "/v1/completions", text_body(of.fields), of);
  }
}

TEST(Validation, ChecksMessages) {
  const auto of_messages = [](const std::string& messages, const std::string& parameter) {
    return field_case{R"({"messages":)" + messages + "}", parameter};
  };
  std::string many = "[";
  for (int i = 0; i < 1025; ++i) {
    many += R"({"role":"user","content":""},)";
  }
  many.back() = ']';
  const std::vector<field_case> cases = {
      {"{}", "messages"},
      of_messages("[]", "messages"),
      of_messages("\"Hi\"", "messages"),
      of_messages("[1]", "messages[0]"),
      of_messages(many, "messages"),
      of_messages(R"([{"content":"a"}])", "messages[0].role"),
      of_messages(R"([{"role":5,"content":"a"}])", "messages[0].role"),
      of_messages(R"([{"role":"king","content":"a"}])", "messages[0].role"),
      of_messages(R"([{"role":"function","content":"a"}])", "messages[0].role"),
      of_messages(R"([{"role":"tool","content":"a","tool_call_id":1}])",
                  "messages[0].tool_call_id"),
      of_messages(R"([{"role":"tool","content":"a","tool_call_id":"x"}])", ""),
      of_messages(R"([{"role":"user"}])", "messages[0].content"),
      of_messages(R"([{"role":"user","content":5}])", "messages[0].content"),
      of_messages(R"([{"role":"user","content":[5]}])", "messages[0].content[0]"),
      of_messages(R"([{"role":"user","content":[{"type":"image_url"}]}])",
                  "messages[0].content[0].type"),
      of_messages(R"([{"role":"user","content":[{"text":"a"}]}])", "messages[0].content[0].type"),
      of_messages(R"([{"role":"user","content":[{"type":"text"}]}])",
                  "messages[0].content[0].text"),
      of_messages(R"([{"role":"user","content":"a","name":5}])", "messages[0].name"),
      of_messages(R"([{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{}]}])",
                  "messages[1].tool_calls[0].function"),
      of_messages(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f",)"
                  R"("arguments":"{"}}]}])",
                  "messages[0].tool_calls[0].function.arguments"),
      of_messages(R"([{"role":"user","content":")" + std::string(3000, 'a') + "\"}]", "messages"),
      of_messages(R"([{"role":"assistant","content":null}])", ""),
      of_messages(R"([{"role":"assistant","tool_calls":[],"content":"a"}])", ""),
      of_messages(R"([{"role":"user","content":"\u0000 \"quoted\" \ud83d\ude42","name":"me"}])",
                  ""),
  };
  world w;
  for (const field_case& of : cases) {
    expect_case(w, "/v1/chat/completions", of.fields, of);
  }
}

TEST(Validation, ChecksPrompts) {
  std::string many = "[";
  for (int i = 0; i < 129; ++i) many += "\"a\",";
  many.back() = ']';
  const std::vector<field_case> cases = {
      {R"({})", "prompt"},
      {R"({"prompt":null})", "prompt"},
      {R"({"prompt":5})", "prompt"},
      {R"({"prompt":[]})", "prompt"},
      {R"({"prompt":""})", "prompt"},
      {R"({"prompt":[[]]})", "prompt[0]"},
      {R"({"prompt":["a",5]})", "prompt[1]"},
      {R"({"prompt":[1,"a"]})", "prompt[1]"},
      {R"({"prompt":[1,-1]})", "prompt[1]"},
      {R"({"prompt":[1,2.0]})", "prompt[1]"},
      {R"({"prompt":[800]})", "prompt[0]"},
      {R"({"prompt":[[1],[99999999999999999999]]})", "prompt[1][0]"},
      {R"({"prompt":)" + many + "}", "prompt"},
      {R"({"prompt":["a","b","c"],"n":128})", "n"},
      {R"({"prompt":[[1],[2]],"n":128})", ""},
  };
  world w;
  for (const field_case& of : cases) {
    SCOPED_TRACE(of.fields.substr(0, 80));
    if (of.parameter.empty()) {
      EXPECT_EQ(w.ask("/v1/completions", of.fields, 2)->status, 0);
    } else {
      expect_refused(*w.post("/v1/completions", of.fields), of.parameter);
    }
  }
}

TEST(Validation, SaysWhenTheContextIsTooSmall) {
  world w;
  const auto answer = w.post("/v1/completions", R"({"prompt":"Hi","max_tokens":512})");
  const json error = answer->parsed()["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "max_tokens");
  json long_prompt = {{"prompt", std::vector<int>(512, 5)}};
  EXPECT_EQ(w.post("/v1/completions", long_prompt.dump())->parsed()["error"]["param"], "prompt");
  long_prompt = {{"prompt", std::vector<int>(511, 5)}};
  w.ask("/v1/completions", long_prompt.dump());
  EXPECT_EQ(w.gang.at(0).request.params.max_tokens, 1) << "the default fits what is left";
}

TEST(Validation, RefusesAModelItDoesNotServe) {
  world w;
  for (const char* const path : {"/v1/chat/completions", "/v1/completions"}) {
    const auto answer = w.post(path, R"({"model":"gpt-4","prompt":"a"})");
    EXPECT_EQ(answer->status, 404);
    EXPECT_EQ(answer->parsed()["error"]["code"], "model_not_found");
    EXPECT_EQ(answer->parsed()["error"]["param"], "model");
  }
  expect_refused(*w.post("/v1/completions", R"({"model":5,"prompt":"a"})"), "model");
}

TEST(Validation, RefusesBodiesThatAreNoJsonWithinBounds) {
  const std::string deep = std::string(31, '[') + std::string(31, ']');
  const std::string too_deep = std::string(32, '[') + std::string(32, ']');
  struct body_case {
    std::string body;
    std::string part;  // of the message
  };
  const std::vector<body_case> cases = {
      {"", "not valid JSON"},
      {"{", "not valid JSON"},
      {"[1]", "not a JSON object"},
      {"\"a\"", "not a JSON object"},
      {"{}{}", "not valid JSON"},
      {R"({"prompt":"a","prompt":"b"})", "key \"prompt\" twice"},
      {R"({"prompt":"a","x":{"y":1,"y":1}})", "key \"y\" twice"},
      {R"({"prompt":"a","x":)" + too_deep + "}", "nested deeper than 32"},
      {R"({"prompt":"a","x":)" + std::string(200'000, '[') + "}", "nested deeper than 32"},
      {"{\"prompt\":\"\xff\"}", "not valid JSON"},
      {"{\"prompt\":\"\xc0\xaf\"}", "not valid JSON"},
      {"{\"prompt\":\"\xed\xa0\x80\"}", "not valid JSON"},
      {R"({"prompt":"\ud800"})", "not valid JSON"},
      {R"({"prompt":"a","temperature":NaN})", "not valid JSON"},
      {R"({"prompt":"a","temperature":Infinity})", "not valid JSON"},
      {R"({"prompt":"a","temperature":1e999})", "number overflow"},
      {R"({"prompt":"a","temperature":-1e999})", "number overflow"},
      {R"({"prompt":"a",/**/"n":1})", "not valid JSON"},
      {"{\"prompt\":\"a\nb\"}", "not valid JSON"},
  };
  world w;
  for (const body_case& of : cases) {
    SCOPED_TRACE(of.body.substr(0, 60));
    const auto answer = w.post("/v1/completions", of.body);
    EXPECT_EQ(answer->status, 400);
    const std::string message = answer->parsed()["error"]["message"];
    EXPECT_NE(message.find(of.part), std::string::npos) << message;
    EXPECT_EQ(answer->parsed()["error"]["param"], nullptr);
  }
  w.ask("/v1/completions", R"({"prompt":"a","x":)" + deep + "}");
}

TEST(Validation, BoundsTheFieldsOfOneObject) {
  json object = json::object();
  for (int i = 1; i < (1 << 14); ++i) object["x" + std::to_string(i)] = i;
  json body = object;
  body["prompt"] = std::string("a");
  world w;
  w.ask("/v1/completions", body.dump());
  body["x"] = 0;
  const std::string message = w.post("/v1/completions", body.dump())->parsed()["error"]["message"];
  EXPECT_NE(message.find("an object of more than 16384 fields"), std::string::npos) << message;
}

TEST(Validation, BoundsTheNumberOfValues) {
  world w([](openai_server_options& options) { options.limits.json_values_max = 100; });
  json body = {{"prompt", std::vector<int>(99, 5)}};
  const std::string message = w.post("/v1/completions", body.dump())->parsed()["error"]["message"];
  EXPECT_NE(message.find("more than 100 values"), std::string::npos) << message;
  body = {{"prompt", std::vector<int>(98, 5)}};
  w.ask("/v1/completions", body.dump());
}

// Bodies that were valid, with some bytes changed: answered with 400, or taken; never anything
// else.
TEST(Validation, SurvivesMutatedBodies) {
  constexpr std::uint32_t seed = 20261121;
  std::mt19937 random(seed);
  const std::vector<std::string> bodies = {
      chat_body(R"("temperature":0.5,"stop":["a","b"],"logprobs":true,"top_logprobs":3,"n":2)"),
      text_body(R"("stream":true,"stream_options":{"include_usage":true},"seed":12,"top_k":4)"),
      R"({"prompt":[[1,2,3],[4]],"max_tokens":7,"logit_bias":{},"user":"é🙂"})",
  };
  constexpr std::string_view likely = "{}[]\",:\\0123456789.eE-+ntf\x80\xff";
  world w;
  for (int i = 0; i < 4000; ++i) {
    std::string body = bodies[random() % bodies.size()];
    const auto changes = 1 + random() % 4;
    for (unsigned change = 0; change < changes; ++change) {
      const std::size_t at = random() % body.size();
      switch (random() % 4) {
        case 0:
          body[at] = likely[random() % likely.size()];
          break;
        case 1:
          body.erase(at, 1 + random() % 3);
          break;
        case 2:
          body.insert(at, 1, likely[random() % likely.size()]);
          break;
        default:
          body.insert(at, body.substr(random() % body.size(), random() % 12));
      }
      if (body.empty()) break;
    }
    SCOPED_TRACE("seed " + std::to_string(seed) + " body " + body);
    const char* const path = i % 2 == 0 ? "/v1/chat/completions" : "/v1/completions";
    const std::size_t before = w.gang.count();
    const auto answer = w.begin("POST", path, body);
    ASSERT_TRUE(w.http.run_until([&] { return answer->ended() || w.gang.count() > before; }));
    if (answer->ended()) {
      ASSERT_TRUE(answer->status == 400 || answer->status == 404) << answer->status;
      ASSERT_EQ(answer->parsed()["error"].size(), 4U);
    } else {
      answer->leave();
      w.http.run();
    }
  }
  EXPECT_TRUE(w.http.run_until([&] { return w.server->open_requests() == 0; }));
}

}  // namespace
}  // namespace troupe::serving::test
