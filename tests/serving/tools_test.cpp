// Tools and reasoning from outside: what reaches the template and the gang, and what the answers
// are made of. The parsers themselves: answer_parser_test.
#include <gtest/gtest.h>

#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

const json weather_tool = json::parse(R"({"type":"function","function":{"name":"get_weather",
    "description":"The weather of a city","parameters":{"type":"object",
    "properties":{"unit":{"$ref":"#/$defs/unit"},"city":{"type":"string"}},
    "required":["city"],"$defs":{"unit":{"enum":["C","F"]}}}}})");

// A model whose template writes tools.
struct tool_world {
  explicit tool_world(tool_format format = tool_format::hermes,
                      reasoning_format reasoning = reasoning_format::none)
      : w([this, format, reasoning](openai_server_options& options) {
          options.chat = &chat;
          options.model.tools = format;
          options.model.reasoning = reasoning;
        }) {}

  world::answer ask(json more = json::object()) {
    json body = {{"messages", json::array({{{"role", "user"}, {"content", "Hi"}}})},
                 {"tools", json::array({weather_tool})}};
    body.update(more);
    return w.ask("/v1/chat/completions", body.dump());
  }
  // The prompt as text.
  [[nodiscard]] std::string prompt(std::size_t request = 0) const {
    return w.tokenizer.decode(w.gang.at(request).request.prompt_ids, {.skip_special_tokens = false})
        .value();
  }
  // The whole text as tokens, one at a time.
  void say(const std::string& text, std::size_t request = 0) {
    const auto ids = w.ids(text);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      w.emit(request, {token_of(ids[i], std::nullopt)});
    }
    w.emit(request, {token_of(w.ids("!")[0], schemas::finish_reason::stop)});
  }

  text::chat_template chat = open_template("qwen3");
  world w;
};

const std::string hermes_call =
    "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bonn\"}}\n"
    "</tool_call>";

TEST(Tools, ReachTheTemplateUnlessNoneMayBeCalled) {
  tool_world of;
  of.ask();
  EXPECT_NE(of.prompt().find("get_weather"), std::string::npos);
  of.ask({{"tool_choice", "none"}});
  EXPECT_EQ(of.prompt(1).find("get_weather"), std::string::npos);
}

TEST(Tools, ACallIsInTheMessageAndNotInTheContent) {
  tool_world of;
  const auto answer = of.ask();
  of.say(hermes_call);
  const json choice = answer->parsed()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "I look.");
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1U) << choice;
  const json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_TRUE(call["id"].get<std::string>().starts_with("call_"));
  EXPECT_EQ(call["function"]["name"], "get_weather");
  EXPECT_EQ(call["function"]["arguments"], "{\"city\": \"Bonn\"}");
}

TEST(Tools, AStreamHasTheSameCallInPieces) {
  tool_world of;
  const auto answer = of.ask({{"stream", true}});
  of.say(hermes_call);
  std::string content;
  std::string arguments;
  json begin;
  std::string finish;
  std::size_t pieces = 0;
  for (const json& event : answer->events()) {
    if (!event.is_object() || event["choices"].empty()) continue;
    const json& choice = event["choices"][0];
    content += choice["delta"].value("content", "");
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
    for (const json& call : choice["delta"].value("tool_calls", json::array())) {
      EXPECT_EQ(call["index"], 0);
      if (call.contains("id")) begin = call;
      arguments += call["function"].value("arguments", "");
      ++pieces;
    }
  }
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(begin["function"]["name"], "get_weather");
  EXPECT_EQ(arguments, "{\"city\": \"Bonn\"}");
  EXPECT_GT(pieces, 3U) << "the arguments come as they are written";
  EXPECT_EQ(finish, "tool_calls");
}

TEST(Tools, AnAnswerWithoutACallIsContent) {
  tool_world of;
  const auto answer = of.ask();
  of.say("It is 3 < 4");
  const json choice = answer->parsed()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "It is 3 < 4");
  EXPECT_FALSE(choice["message"].contains("tool_calls"));
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST(Tools, RequiredMakesTheAnswerAListOfCalls) {
  tool_world of;
  const auto answer = of.ask({{"tool_choice", "required"}, {"parallel_tool_calls", false}});
  const auto& grammar = of.w.gang.at(0).request.params.grammar;
  ASSERT_NE(grammar, nullptr);
  EXPECT_EQ(grammar->of, schemas::output_grammar::kind::json_schema);
  const json schema = json::parse(grammar->text);
  EXPECT_EQ(schema["maxItems"], 1);
  const json& call = schema["items"]["anyOf"][0]["properties"];
  EXPECT_EQ(call["name"]["const"], "get_weather");
  EXPECT_EQ(call["parameters"]["properties"]["unit"]["$ref"],
            "#/items/anyOf/0/properties/parameters/$defs/unit")
      << "references find what they meant";
  of.say(R"([{"name":"get_weather","parameters":{"city":"Ulm"}}])");
  const json choice = answer->parsed()["choices"][0];
  EXPECT_TRUE(choice["message"]["content"].is_null());
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"city":"Ulm"})");
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
}

TEST(Tools, ANamedFunctionGetsItsArguments) {
  tool_world of;
  const auto answer =
      of.ask({{"tool_choice", {{"type", "function"}, {"function", {{"name", "get_weather"}}}}}});
  const json schema = json::parse(of.w.gang.at(0).request.params.grammar->text);
  EXPECT_TRUE(schema["properties"].contains("city"));
  of.say(R"({"city":"Ulm"})");
  const json choice = answer->parsed()["choices"][0];
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "get_weather");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"city":"Ulm"})");
  EXPECT_EQ(choice["finish_reason"], "stop") << "as OpenAI: nobody chose to call";
}

TEST(Tools, HistoryReachesTheTemplateWithArgumentsAsObjects) {
  tool_world of;
  const json messages = json::parse(R"([{"role":"user","content":"Weather?"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
       "function":{"name":"get_weather","arguments":"{\"city\":\"Bonn\"}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"rain in Bonn"}])");
  of.ask({{"messages", messages}});
  const std::string prompt = of.prompt();
  EXPECT_NE(prompt.find(R"("arguments": {"city": "Bonn"})"), std::string::npos) << prompt;
  EXPECT_NE(prompt.find("rain in Bonn"), std::string::npos);
}

TEST(Tools, RefusalsNameThePlace) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"tools":{}})", "tools"},
      {R"({"tools":[{"type":"code"}]})", "tools[0].type"},
      {R"({"tools":[{"type":"function"}]})", "tools[0].function"},
      {R"({"tools":[{"type":"function","function":{}}]})", "tools[0].function.name"},
      {R"({"tools":[{"type":"function","function":{"name":"f","parameters":1}}]})",
       "tools[0].function.parameters"},
      {R"({"tool_choice":"always"})", "tool_choice"},
      {R"({"tool_choice":{"function":{"name":"nobody"}}})", "tool_choice.function.name"},
      {R"({"tool_choice":"required","response_format":{"type":"json_object"}})", "tool_choice"},
      {R"({"response_format":{"type":"json_object"}})", "tools"},
      {R"({"parallel_tool_calls":"no"})", "parallel_tool_calls"},
  };
  for (const auto& [more, param] : cases) {
    tool_world of;
    json body = {{"messages", json::array({{{"role", "user"}, {"content", "Hi"}}})},
                 {"tools", json::array({weather_tool})}};
    body.update(json::parse(more));
    const auto refused = of.w.post("/v1/chat/completions", body.dump());
    EXPECT_EQ(refused->status, 400) << more;
    EXPECT_EQ(refused->parsed()["error"]["param"], param) << more;
  }
  tool_world unknown(tool_format::none);
  json body = {{"messages", json::array({{{"role", "user"}, {"content", "Hi"}}})},
               {"tools", json::array({weather_tool})}};
  const auto refused = unknown.w.post("/v1/chat/completions", body.dump());
  EXPECT_EQ(refused->status, 400);
  EXPECT_NE(refused->body.find("--tool-call-parser"), std::string::npos);
}

TEST(Reasoning, HasAFieldOfItsOwn) {
  for (const bool stream : {false, true}) {
    tool_world of(tool_format::hermes, reasoning_format::qwen3);
    const auto answer = of.ask({{"tools", json::array()}, {"stream", stream}});
    of.say("<think>\nHm.\n</think>\n\nYes");
    std::string reasoning;
    std::string content;
    if (!stream) {
      const json message = answer->parsed()["choices"][0]["message"];
      reasoning = message.value("reasoning_content", "");
      content = message.value("content", "");
    } else {
      for (const json& event : answer->events()) {
        if (!event.is_object() || event["choices"].empty()) continue;
        const json& delta = event["choices"][0]["delta"];
        reasoning += delta.value("reasoning_content", "");
        content += delta.value("content", "");
      }
    }
    EXPECT_EQ(reasoning, "Hm.") << stream;
    EXPECT_EQ(content, "Yes") << stream;
  }
}

}  // namespace
}  // namespace troupe::serving::test
