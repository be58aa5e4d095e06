// What goes wrong or ends early: clients that leave, a gang that is lost, full queues, draining.
#include "tests/serving/serving_world.hpp"

namespace troupe::serving::test {
namespace {

using schemas::finish_reason;

base::result<void> failed(base::error_code code, const std::string& message,
                          bool retryable = false) {
  return base::fail(code, "gang", message, retryable);
}

TEST(ClientGone, CancelsAtTheGang) {
  world w;
  for (const bool stream : {false, true}) {
    const std::size_t request = w.gang.count();
    const auto answer = w.ask_chat({{"stream", stream}});
    w.emit(request, w.ids("a")[0]);
    EXPECT_EQ(w.server->open_requests(), 1U);
    answer->leave();
    EXPECT_TRUE(w.gang.cancelled(request));
    w.http.run();
    EXPECT_EQ(w.server->open_requests(), 0U);
    w.emit(request, w.ids("b")[0]);  // on its way already
    w.end(request, failed(base::error_code::cancelled, "the client went away"));
    EXPECT_FALSE(answer->complete);
  }
  const std::string page = w.get("/metrics")->body;
  EXPECT_NE(page.find("troupe_clients_gone_total{model_name=\"small\",engine=\"0\"} 2\n"),
            std::string::npos);
  EXPECT_NE(page.find("finished_reason=\"abort\"} 2\n"), std::string::npos);
}

TEST(ClientGone, IsNeverSubmittedWhenItLeftWhileItWasRead) {
  world w;
  const auto answer = w.begin("POST", "/v1/completions", R"({"prompt":"a"})");
  answer->leave();
  EXPECT_TRUE(w.http.run_until([&] { return w.server->open_requests() == 0; }));
  EXPECT_EQ(w.gang.count(), 0U);
  EXPECT_EQ(answer->status, 0);
}

TEST(GangLoss, IsAnErrorEventWithoutDoneInAStream) {
  world w;
  const auto answer = w.ask_chat({{"stream", true}});
  w.emit(0, w.ids("Hello")[0]);
  w.end(0, failed(base::error_code::unavailable, "rank 1 was lost: killed by signal 9", true));
  EXPECT_EQ(answer->status, 200);
  EXPECT_TRUE(answer->complete);  // in order, but without [DONE]
  const auto events = answer->events();
  const json error = events.back();
  EXPECT_EQ(error, json({{"error",
                          {{"message", "rank 1 was lost: killed by signal 9"},
                           {"type", "server_error"},
                           {"param", nullptr},
                           {"code", "unavailable"}}}}));
  EXPECT_EQ(answer->body.find("[DONE]"), std::string::npos);
  EXPECT_FALSE(w.gang.cancelled(0)) << "it has ended by itself";
  EXPECT_EQ(w.server->open_requests(), 0U);
}

TEST(GangLoss, IsAnHttpErrorBeforeTheFirstToken) {
  world w;
  for (const bool stream : {true, false}) {
    const std::size_t request = w.gang.count();
    const auto answer = w.ask_chat({{"stream", stream}});
    w.end(request, failed(base::error_code::unavailable, "rank 1 was lost", true));
    EXPECT_EQ(answer->status, 503);
    EXPECT_EQ(answer->header("retry-after"), "1");
    EXPECT_EQ(answer->parsed()["error"]["code"], "unavailable");
  }
}

TEST(GangLoss, EndsTheOtherPromptsOfARequest) {
  world w;
  const auto answer = w.ask("/v1/completions", R"({"prompt":["a","b"]})", 2);
  w.end(0, failed(base::error_code::internal, "a check failed"));
  EXPECT_EQ(answer->status, 500);
  EXPECT_TRUE(w.gang.cancelled(1));
}

TEST(Errors, HaveTheStatusOfTheTable) {
  struct status_case {
    base::error_code code;
    bool retryable;
    int status;
    std::string retry_after;
  };
  const std::vector<status_case> cases = {
      {base::error_code::invalid_argument, false, 400, ""},
      {base::error_code::deadline_exceeded, false, 504, ""},
      {base::error_code::resource_exhausted, true, 503, "1"},
      {base::error_code::unavailable, true, 503, "1"},
      {base::error_code::aborted, true, 503, "1"},
      {base::error_code::internal, false, 500, ""},
      {base::error_code::unknown, false, 500, ""},
      {base::error_code::permission_denied, false, 403, ""},
  };
  for (const status_case& of : cases) {
    world w;
    w.gang.refusal = base::error{of.code, "why", "gang", of.retryable};
    const auto answer = w.post("/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(answer->status, of.status);
    EXPECT_EQ(answer->header("retry-after"), of.retry_after);
    EXPECT_EQ(answer->parsed()["error"]["code"], std::string(base::to_string(of.code)));
    EXPECT_EQ(answer->parsed()["error"]["message"], "why");
  }
}

TEST(Errors, AreRaisedForLogitsThatAreNoNumbers) {
  world w;
  const auto answer = w.ask_chat();
  auto token = token_of(1);
  token.token.finite = false;
  w.emit(0, {token});
  EXPECT_EQ(answer->status, 500);
  EXPECT_TRUE(w.gang.cancelled(0));
}

TEST(Errors, AreRaisedWhenTheGangEndsTooEarly) {
  world w;
  const auto answer = w.ask_chat({{"n", 2}});
  w.emit(0, w.ids("a")[0], finish_reason::length, 0);
  w.end(0);
  EXPECT_EQ(answer->status, 500);
}

TEST(TextQueue, AnswersAtOnceWhenItIsFull) {
  world w([](openai_server_options& options) { options.limits.text_queue_max = 2; });
  std::vector<world::answer> answers;
  bool refused = false;
  // The text thread takes some while they come; a full queue is found in the end.
  for (int i = 0; i < 100'000 && !refused; ++i) {
    answers.push_back(w.begin("POST", "/v1/completions", R"({"prompt":"a"})"));
    refused = answers.back()->ended();
  }
  ASSERT_TRUE(refused);
  EXPECT_EQ(answers.back()->status, 503);
  EXPECT_EQ(answers.back()->header("retry-after"), "1");
  EXPECT_TRUE(w.http.run_until([&] { return w.gang.count() == answers.size() - 1; }))
      << "all others are served";
}

TEST(TextQueue, ReadsLongBodiesOnAThreadOfTheirOwn) {
  world w([](openai_server_options& options) { options.limits.short_body_bytes = 100; });
  const auto long_one =
      w.begin("POST", "/v1/completions", json({{"prompt", std::string(200'000, 'a')}}).dump());
  w.ask("/v1/completions", R"({"prompt":"short"})");
  EXPECT_TRUE(w.http.run_until([&] { return long_one->ended(); }));
  EXPECT_EQ(long_one->status, 400);
}

TEST(Drain, RefusesNewWorkAndLetsTheOpenEnd) {
  world w;
  const auto open = w.ask_chat({{"stream", true}});
  w.emit(0, w.ids("a")[0]);
  EXPECT_EQ(w.get("/ready")->status, 200);
  w.server->drain();
  const auto ready = w.get("/ready");
  EXPECT_EQ(ready->status, 503);
  EXPECT_EQ(ready->parsed(), json({{"ready", false}, {"reason", "draining"}}));
  EXPECT_EQ(w.get("/health")->status, 200) << "it lives";
  const auto refused = w.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->header("connection"), "close");
  EXPECT_EQ(refused->header("retry-after"), "5");
  EXPECT_EQ(w.server->open_requests(), 1U);
  w.emit(0, w.ids("b")[0], finish_reason::length);
  EXPECT_TRUE(open->complete);
  EXPECT_EQ(w.server->open_requests(), 0U);
}

TEST(Shutdown, CancelsWhatIsOpen) {
  world w;
  const auto first = w.ask_chat();
  const auto second = w.begin("POST", "/v1/completions", R"({"prompt":"a"})");
  const auto sink = w.gang.at(0).sink;
  w.server.reset();
  EXPECT_TRUE(w.gang.cancelled(0));
  const auto token = token_of(1);
  sink->on_tokens({&token, 1});  // the gang may still be at it
  sink->on_end({});
  w.http.run();
  EXPECT_EQ(first->status, 0);
  EXPECT_EQ(second->status, 0);
}

}  // namespace
}  // namespace troupe::serving::test
