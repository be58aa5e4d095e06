// What a client and an operator see of a real gang: cancellation, drain, health, bits.
#include <gtest/gtest.h>

#include "tests/gang/served_gang.hpp"
#include "tests/serving/client_script.hpp"

namespace troupe::gang_test {
namespace {

TEST(ServedGang, FreesWhatAClientThatWentHeld) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  open_stream stream(gang.url(), completion_body(3500));
  ASSERT_TRUE(wait_until([&] { return stream.pieces() >= 5; }));
  stream.cancel();
  stream.join();
  EXPECT_TRUE(wait_until([&] { return gang.metric("vllm:num_requests_running") == 0.0; }, 10s));
  EXPECT_TRUE(wait_until([&] { return gang.metric("vllm:kv_cache_usage_perc") == 0.0; }, 10s));
}

TEST(ServedGang, ComputesOneMoreStepAtMostForAClientThatWent) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  open_stream stays(gang.url(), completion_body(3500));
  constexpr int clients = 12;
  for (int client = 0; client < clients; ++client) {
    open_stream goes(gang.url(), completion_body(3000));
    ASSERT_TRUE(wait_until([&] { return goes.pieces() >= 3; }));
    goes.cancel();
    goes.join();
    ASSERT_TRUE(wait_until(
        [&] { return gang.metric("troupe_requests_cancelled_total") >= client + 1.0; }, 10s));
    EXPECT_LE(gang.metric("troupe_steps_after_cancel_total"), client + 1.0);
  }
  EXPECT_EQ(gang.metric("vllm:num_requests_running"), 1.0);
  EXPECT_FALSE(stays.failed());
}

TEST(ServedGang, DrainsOnSigterm) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  open_stream stream(gang.url(), completion_body(500));
  ASSERT_TRUE(wait_until([&] { return stream.pieces() >= 5; }));
  ASSERT_EQ(::kill(gang.supervisor(), SIGTERM), 0);
  EXPECT_TRUE(wait_until([&] { return gang.status("/ready") != 200; }, 10s));
  stream.join();
  EXPECT_TRUE(stream.done()) << stream.error();
  EXPECT_EQ(gang.wait(), 0) << gang.log();
}

TEST(ServedGang, EndsAtOnceOnSigtermWhileNothingIsOpen) {
  for (int life = 0; life < 8; ++life) {
    served_gang gang({"--tensor-parallel-size", "2", "--drain-timeout", "30"});
    ASSERT_TRUE(gang.ready_within()) << gang.log();
    ASSERT_EQ(::kill(gang.supervisor(), SIGTERM), 0);
    EXPECT_EQ(gang.wait(), 0) << gang.log();
  }
}

TEST(ServedGang, AnswersHealthOverTheSupervisorsSocket) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const auto joined = cli::test::run({"health", "--state-dir", gang.state_dir().string()});
  EXPECT_EQ(joined.code, 0) << joined.out << joined.err;
  EXPECT_EQ(cli::test::run({"health", "--state-dir", gang.state_dir().string() + "/none"}).code, 1);
}

TEST(ServedGang, GivesTheTokensOfGenerateOverThreads) {
  served_gang gang({"--tensor-parallel-size", "2", "--pipeline-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  json body = completion_body(50);
  body["temperature"] = 1.0;
  body["seed"] = 12345;
  open_stream stream(gang.url(), body);
  stream.join();
  ASSERT_TRUE(stream.done()) << stream.error();
  const auto alone = cli::test::run({"generate", "demo", "--prompt", "A gang is", "--max-tokens",
                                     "50", "--ignore-eos", "--temperature", "1", "--seed", "12345",
                                     "--ranks", "threads"});
  EXPECT_EQ(alone.out, stream.text() + "\n");
}

// The grammar's masks go with the plan: each rank of the last stage draws the same.
TEST(ServedGang, AnswersInTheFormThatIsAskedForWhateverTheLayout) {
  json body = completion_body(200);
  body["temperature"] = 1.0;
  body["seed"] = 7;
  body["guided_json"] = json::parse(R"({"type":"object","additionalProperties":false,
      "properties":{"kind":{"enum":["tensor","pipeline"]},"ranks":{"enum":[1,2,4,8]},
                    "more":{"type":"array","maxItems":3,"items":{"type":"boolean"}}},
      "required":["kind","ranks","more"]})");
  std::vector<std::string> answers;
  for (const char* const ranks : {"1", "4"}) {
    served_gang gang({"--tensor-parallel-size", ranks});
    ASSERT_TRUE(gang.ready_within()) << gang.log();
    open_stream stream(gang.url(), body);
    stream.join();
    ASSERT_TRUE(stream.done()) << stream.error();
    answers.push_back(stream.text());
  }
  EXPECT_EQ(answers[0], answers[1]);
  const json answer = json::parse(answers[0], nullptr, false);
  ASSERT_TRUE(answer.is_object()) << answers[0];
  EXPECT_TRUE(answer["kind"] == "tensor" || answer["kind"] == "pipeline") << answer;
  EXPECT_TRUE(answer["more"].is_array() && answer["more"].size() <= 3) << answer;
}

// The embedded model has never seen a tool: its grammar makes it call one.
TEST(ServedGang, CallsTheToolThatItIsMadeToCall) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const json tool = json::parse(R"({"type":"function","function":{"name":"resize_gang",
      "parameters":{"type":"object","additionalProperties":false,"required":["ranks","why"],
      "properties":{"ranks":{"enum":[1,2,4,8]},"why":{"type":"string","maxLength":20}}}}})");
  json body = {{"messages", json::array({{{"role", "user"}, {"content", "Make it larger"}}})},
               {"tools", json::array({tool})},
               {"tool_choice", "required"},
               {"parallel_tool_calls", false},
               {"max_tokens", 300},
               {"seed", 5}};
  const auto ask = [&] {
    return net::http_fetch({.method = "POST",
                            .url = gang.url() + "/v1/chat/completions",
                            .headers = {{"content-type", "application/json"}},
                            .body = body.dump(),
                            .deadline = 60s});
  };
  const auto whole = ask();
  ASSERT_TRUE(whole && whole->status == 200) << (whole ? whole->body : whole.error().message);
  const json choice = json::parse(whole->body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  const json& call = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "resize_gang");
  const json arguments = json::parse(call["arguments"].get<std::string>(), nullptr, false);
  ASSERT_TRUE(arguments.is_object()) << call;
  EXPECT_TRUE(arguments["ranks"].is_number() && arguments["why"].is_string()) << arguments;

  body["stream"] = true;
  const auto stream = ask();
  ASSERT_TRUE(stream && stream->status == 200);
  std::string pieces;
  std::istringstream lines(stream->body);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: {")) continue;
    const json data = json::parse(line.substr(6));
    for (const json& event : data["choices"]) {
      EXPECT_EQ(event["delta"].value("content", ""), "");
      for (const json& part : event["delta"].value("tool_calls", json::array())) {
        pieces += part["function"].value("arguments", "");
      }
    }
  }
  EXPECT_EQ(pieces, call["arguments"].get<std::string>());
}

// Tools and forms too, which need a model that follows a grammar.
TEST(ServedGang, IsWhatTheOfficialPythonClientExpects) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  serving::test::expect_passes("openai_client_test.py", "--no-install " + gang.url() + "/v1");
}

TEST(ServedGang, ComputesARepeatedPromptOnlyOnce) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  json body = completion_body(10);
  std::vector<std::int32_t> prompt(200);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<std::int32_t>(300 + i);
  body["prompt"] = prompt;
  std::vector<std::string> answers;
  const auto ask = [&] {
    open_stream stream(gang.url(), body);
    stream.join();
    EXPECT_TRUE(stream.done()) << stream.error();
    answers.push_back(stream.text());
  };
  ask();
  const double computed = gang.metric("troupe_prefill_tokens_computed_total");
  ask();
  EXPECT_LT(gang.metric("troupe_prefill_tokens_computed_total") - computed, 16.0);
  EXPECT_EQ(gang.metric("vllm:prefix_cache_hits_total"), 192.0);
  EXPECT_EQ(gang.metric("vllm:prefix_cache_queries_total"), 400.0);
  EXPECT_EQ(answers[0], answers[1]);
}

json completion(served_gang& gang, json body) {
  body["stream"] = false;
  const auto reply = net::http_fetch({.method = "POST",
                                      .url = gang.url() + "/v1/completions",
                                      .headers = {{"content-type", "application/json"}},
                                      .body = body.dump(),
                                      .deadline = 60s});
  return reply ? json::parse(reply->body, nullptr, false) : json(reply.error().message);
}

// What is computed in one chunk with its successors given has the bits of what was decoded token by
// token.
TEST(ServedGang, ScoresAnAnswerWithTheLogprobsItWasDrawnWith) {
  served_gang gang({"--tensor-parallel-size", "2", "--pipeline-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  json body = completion_body(40);
  body["prompt"] = {400, 401, 402, 403};
  body["temperature"] = 1.0;
  body["seed"] = 11;
  body["logprobs"] = 2;
  body["return_token_ids"] = true;
  const json drawn = completion(gang, body);
  ASSERT_TRUE(drawn.contains("choices")) << drawn;
  const json& answer = drawn["choices"][0];
  json whole = body["prompt"];
  for (const json& id : answer["token_ids"]) whole.push_back(id);
  body["prompt"] = whole;
  body["echo"] = true;
  body["max_tokens"] = 0;
  const json scored = completion(gang, body);
  ASSERT_TRUE(scored.contains("choices")) << scored;
  const json& echo = scored["choices"][0]["logprobs"];
  ASSERT_EQ(echo["tokens"].size(), whole.size());
  EXPECT_TRUE(echo["token_logprobs"][0].is_null());
  for (std::size_t i = 0; i < answer["token_ids"].size(); ++i) {
    EXPECT_EQ(echo["token_logprobs"][4 + i], answer["logprobs"]["token_logprobs"][i]) << i;
    EXPECT_EQ(echo["top_logprobs"][4 + i], answer["logprobs"]["top_logprobs"][i]) << i;
  }
}

TEST(ServedGang, RefusesToBeReachedFromElsewhereWithoutKeys) {
  const auto refused = cli::test::run({"serve", "demo", "--host", "0.0.0.0", "--port", "0"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("--api-key-file"), std::string::npos);
}

}  // namespace
}  // namespace troupe::gang_test
