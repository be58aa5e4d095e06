// A router before gangs that are lost, refuse, drain and come back: what its clients see.
#include "router/router.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/router/stand_in_gang.hpp"

namespace troupe::router {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace): the stand-ins of these tests
using nlohmann::json;

// As a client writes it that the test can hold up, or take away.
const std::string small_post =
    "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";

void answer_well(const net::http_request& request, const response_ptr& to) {
  to->send(200, {{"content-type", "application/json"}}, "answer to " + request.body);
}

void stream_well(const net::http_request& /*request*/, const response_ptr& to) {
  to->begin(200, {{"content-type", "text/event-stream"}});
  to->write(event("a"));
  to->write(event("b"));
  to->write("data: [DONE]\n\n");
  to->finish();
}

void send_error(const response_ptr& to, int status, const std::string& code) {
  to->send(status, {{"retry-after", "3"}}, R"({"error":{"message":"m","code":")" + code + "\"}}");
}

TEST(Router, PassesRequestAndAnswerOnAsTheyAre) {
  net::http_request seen;
  stand_in_gang gang([&](const net::http_request& request, const response_ptr& to) {
    seen = request;
    to->send(418, {{"x-of-the-gang", "1"}, {"content-type", "text/odd"}}, "short and stout");
  });
  routed router;
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  const auto reply = net::http_fetch({.method = "POST",
                                      .url = router.url("/v1/completions?a=b"),
                                      .headers = {{"authorization", "Bearer abc"}, {"x-own", "2"}},
                                      .body = R"({"prompt":"hello"})"});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 418);
  EXPECT_EQ(reply->body, "short and stout");
  EXPECT_EQ(reply->header("x-of-the-gang"), "1");
  EXPECT_EQ(reply->header("content-type"), "text/odd");
  EXPECT_EQ(seen.target, "/v1/completions?a=b");
  EXPECT_EQ(seen.body, R"({"prompt":"hello"})");
  EXPECT_EQ(seen.header("authorization"), "Bearer abc");
  EXPECT_EQ(seen.header("x-own"), "2");
  EXPECT_EQ(seen.header("x-forwarded-for"), "127.0.0.1");
}

TEST(Router, PassesAStreamOnPieceByPiece) {
  std::promise<response_ptr> opened;
  stand_in_gang gang([&](const net::http_request&, response_ptr to) {
    to->begin(200, {{"content-type", "text/event-stream"}});
    to->write(event("a"));
    opened.set_value(std::move(to));
  });
  routed router;
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  std::string got;
  const auto reply = net::http_stream(
      {.method = "POST", .url = router.url("/v1/completions"), .body = "{}"},
      {.piece = [&](std::string_view bytes) {
        got += bytes;
        if (got == event("a")) {  // the rest is written only when the client has this
          const response_ptr to = net::test::kept(opened);
          to->write(event("b"));
          to->finish();
        }
        return true;
      }});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(got, event("a") + event("b"));
}

TEST(Router, SpreadsByWhatIsOutstanding) {
  std::mutex mutex;
  std::vector<response_ptr> held;
  const auto hold = [&](const net::http_request&, response_ptr to) {
    const std::lock_guard lock(mutex);
    held.push_back(std::move(to));
  };
  stand_in_gang a(hold);
  stand_in_gang b(hold);
  routed router;
  router.find({a.place("a"), b.place("b")});
  ASSERT_TRUE(router.both_ready());
  std::vector<std::thread> clients;
  for (int i = 0; i < 10; ++i) clients.emplace_back([&] { (void)router.ask(); });
  EXPECT_TRUE(eventually([&] { return a.asked + b.asked == 10; }));
  EXPECT_EQ(a.asked, 5);
  EXPECT_GT(router.metric(R"(troupe_router_gang_outstanding_tokens{gang="a"})"), 0.0);
  {
    const std::lock_guard lock(mutex);
    for (const response_ptr& to : held) to->send(200, {}, "ok");
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(router.metric(R"(troupe_router_gang_outstanding_tokens{gang="a"})"), 0.0);
  EXPECT_EQ(router.metric("troupe_router_open_requests"), 0.0);
}

// --- a gang is lost -----------------------------------------------------------------------------

// What a lost gang leaves behind at each stage of an answer; none of them is seen by the client.
struct loss {
  const char* name;
  stand_in_gang::work work;
};

class ALossBeforeTheFirstToken : public ::testing::TestWithParam<loss> {};

TEST_P(ALossBeforeTheFirstToken, IsNotSeen) {
  stand_in_gang lost(GetParam().work);
  stand_in_gang good(stream_well);
  routed router;
  router.find({lost.place("a"), good.place("b")});
  ASSERT_TRUE(router.both_ready());
  std::string expected = event("a") + event("b") + "data: [DONE]\n\n";
  for (int i = 0; i < 6; ++i) {
    const auto reply = router.ask();
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200);
    EXPECT_EQ(reply->body, expected);
  }
  EXPECT_GE(lost.asked, 1);
  EXPECT_EQ(router.metric("troupe_router_retries_total"), lost.asked);
  EXPECT_EQ(router.metric("troupe_router_gave_up_total"), 0.0);
}

INSTANTIATE_TEST_SUITE_P(
    Router, ALossBeforeTheFirstToken,
    ::testing::Values(
        loss{"cut_without_an_answer", [](const auto&, const response_ptr& to) { to->cut(); }},
        loss{"cut_after_the_head",
             [](const auto&, const response_ptr& to) {
               to->begin(200, {{"content-type", "text/event-stream"}});
               to->cut();
             }},
        loss{"cut_in_a_whole_answer",
             [](const auto&, const response_ptr& to) {
               to->begin(200, {{"content-type", "application/json"}});
               to->write("{\"choices\":");
               to->cut();
             }},
        loss{"an_error_before_the_first_token",
             [](const auto&, const response_ptr& to) {
               to->begin(200, {{"content-type", "text/event-stream"}});
               to->write(event(""));
               to->write("data: {\"error\":{\"message\":\"lost\",\"code\":\"aborted\"}}\n\n");
               to->finish();
             }},
        loss{"503",
             [](const auto&, const response_ptr& to) { send_error(to, 503, "unavailable"); }}),
    [](const auto& of) { return std::string("_") + of.param.name; });

TEST(Router, AGangThatRefusesConnectionsIsLeft) {
  stand_in_gang gone(answer_well);
  stand_in_gang good(answer_well);
  routed router;
  router.find({gone.place("a"), good.place("b")});
  ASSERT_TRUE(
      eventually([&] { return router.metric(R"(troupe_router_gang_ready{gang="a"})") == 1.0; }));
  gone.stop();
  for (int i = 0; i < 6; ++i) {
    const auto reply = router.ask();
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200);
  }
  EXPECT_TRUE(
      eventually([&] { return router.metric(R"(troupe_router_gang_ready{gang="a"})") == 0.0; }));
}

TEST(Router, AStreamThatHasBegunEndsWithAnErrorAndIsNotRepeated) {
  const auto half = [](const net::http_request&, const response_ptr& to) {
    to->begin(200, {{"content-type", "text/event-stream"}});
    to->write(event("a"));
    to->write("data: {\"cho");
    to->cut();
  };
  stand_in_gang a(half);
  stand_in_gang b(half);
  routed router;
  router.find({a.place("a"), b.place("b")});
  ASSERT_TRUE(router.ready());
  const auto reply = router.ask();
  ASSERT_TRUE(reply) << reply.error().message;
  ASSERT_TRUE(reply->body.starts_with(event("a"))) << reply->body;
  const std::size_t last = reply->body.rfind("data: ");
  const json told = json::parse(reply->body.substr(last + 6), nullptr, false);
  EXPECT_EQ(told["error"]["code"], "unavailable") << reply->body;
  EXPECT_EQ(a.asked + b.asked, 1);
  EXPECT_EQ(router.metric("troupe_router_cut_streams_total"), 1.0);
}

TEST(Router, ARequestThatLosesEveryGangIsGivenUp) {
  const auto die = [](const net::http_request&, const response_ptr& to) { to->cut(); };
  stand_in_gang a(die);
  stand_in_gang b(die);
  stand_in_gang c(die);
  stand_in_gang d(die);
  router_options options;
  options.retries.losses_max = 2;
  routed router(std::move(options));
  router.find({a.place("a"), b.place("b"), c.place("c"), d.place("d")});
  ASSERT_TRUE(router.ready());
  const auto reply = router.ask();
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 503);
  EXPECT_FALSE(reply->header("retry-after").empty());
  EXPECT_EQ(a.asked + b.asked + c.asked + d.asked, 3);
}

TEST(Router, AGangThatFallsSilentLosesItsRequests) {
  std::mutex mutex;
  std::vector<response_ptr> held;
  stand_in_gang silent([&](const net::http_request&, response_ptr to) {
    const std::lock_guard lock(mutex);
    held.push_back(std::move(to));
  });
  stand_in_gang good(answer_well);
  router_options options;
  options.probes.patience = milliseconds(30);
  options.probes.lost_after = milliseconds(100);
  routed router(std::move(options));
  router.find({silent.place("a")});
  ASSERT_TRUE(router.ready());
  std::thread client([&] {
    const auto reply = router.ask();
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200);
  });
  EXPECT_TRUE(eventually([&] { return silent.asked == 1; }));
  // As if its machine had lost its power: its connections are there and say nothing.
  router.find({silent.place("a"), good.place("b")});
  silent.silent = true;
  client.join();
  EXPECT_EQ(good.asked, 1);
}

// --- none is ready ------------------------------------------------------------------------------

TEST(Router, ARequestWaitsForAGang) {
  stand_in_gang gang(answer_well);
  gang.ready_status = 503;
  routed router;
  router.find({gang.place("g")});
  std::thread client([&] {
    const auto reply = router.ask();
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200);
  });
  EXPECT_TRUE(eventually([&] { return router.metric("troupe_router_waiting_requests") == 1.0; }));
  EXPECT_EQ(net::http_fetch({.url = router.url("/ready")})->status, 503);
  EXPECT_EQ(gang.asked, 0);
  gang.ready_status = 200;
  client.join();
  EXPECT_EQ(gang.asked, 1);
  EXPECT_EQ(net::http_fetch({.url = router.url("/ready")})->status, 200);
}

TEST(Router, ARequestDoesNotWaitForEver) {
  router_options options;
  options.retries.patience = milliseconds(100);
  routed router(std::move(options));
  const auto reply = router.ask();
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 503);
  EXPECT_EQ(json::parse(reply->body)["error"]["code"], "unavailable");
  EXPECT_FALSE(reply->header("retry-after").empty());
}

TEST(Router, NoMoreWaitThanMay) {
  router_options options;
  options.waiting_max = 1;
  routed router(std::move(options));
  net::test::raw_client waits(router.listening.port);
  waits.send(small_post);
  EXPECT_TRUE(eventually([&] { return router.metric("troupe_router_waiting_requests") == 1.0; }));
  EXPECT_EQ(router.ask()->status, 503);
  waits.close();  // and the place is free
  EXPECT_TRUE(eventually([&] { return router.metric("troupe_router_waiting_requests") == 0.0; }));
}

TEST(Router, BoundsWhatItKeepsToTryAgain) {
  router_options options;
  options.bodies_bytes_max = 10;
  routed router(std::move(options));
  net::test::raw_client waits(router.listening.port);
  waits.send("POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n{    }");
  EXPECT_TRUE(eventually([&] { return router.metric("troupe_router_waiting_requests") == 1.0; }));
  const auto refused = router.ask("{\"a\":1}");
  ASSERT_TRUE(refused) << refused.error().message;
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(json::parse(refused->body)["error"]["code"], "resource_exhausted");
  waits.close();
  EXPECT_TRUE(eventually([&] { return router.metric("troupe_router_waiting_requests") == 0.0; }));
  stand_in_gang gang(answer_well);
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  EXPECT_EQ(router.ask("{\"a\":1}")->status, 200);
}

// --- pressure, clients that go, gangs that drain ------------------------------------------------

TEST(Router, PassesPressureOnWhenEveryGangIsUnderIt) {
  const auto full = [](const net::http_request&, const response_ptr& to) {
    send_error(to, 503, "resource_exhausted");
  };
  stand_in_gang a(full);
  stand_in_gang b(full);
  routed router;
  router.find({a.place("a"), b.place("b")});
  ASSERT_TRUE(router.both_ready());
  const auto reply = router.ask();
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 503);
  EXPECT_EQ(reply->header("retry-after"), "3");
  EXPECT_EQ(json::parse(reply->body)["error"]["code"], "resource_exhausted");
  EXPECT_EQ(a.asked, 1);
  EXPECT_EQ(b.asked, 1);
  EXPECT_TRUE(router.ready()) << "a full gang is a ready gang";
}

TEST(Router, AGangIsToldThatItsClientHasGone) {
  std::mutex mutex;
  std::vector<response_ptr> held;
  stand_in_gang gang([&](const net::http_request&, response_ptr to) {
    to->begin(200, {{"content-type", "text/event-stream"}});
    to->write(event("a"));
    const std::lock_guard lock(mutex);
    held.push_back(std::move(to));
  });
  routed router;
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  net::test::raw_client client(router.listening.port);
  client.send(small_post);
  client.read_until("\"text\":\"a\"");
  client.close();
  EXPECT_TRUE(eventually([&] { return gang.left == 1; }));
  EXPECT_EQ(router.metric("troupe_router_cancelled_total"), 1.0);
  EXPECT_EQ(router.metric(R"(troupe_router_gang_open_requests{gang="g"})"), 0.0);
}

// A client that does not read holds its gang up by the socket, not by the router's memory.
TEST(Router, ReadsNoFasterThanItsClient) {
  std::promise<response_ptr> opened;
  stand_in_gang gang([&](const net::http_request&, response_ptr to) {
    to->begin(200, {{"content-type", "text/event-stream"}});
    opened.set_value(std::move(to));
  });
  routed router;
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  net::test::raw_client client(router.listening.port);
  client.send(small_post);
  const response_ptr from = net::test::kept(opened);
  const std::string piece = event(std::string(60'000, 'x'));
  std::size_t written = 0;
  // More than all sockets hold (4 MiB at most each): the gang has a backlog then.
  while (from->unsent_bytes() < 500'000 && written < (std::size_t{64} << 20)) {
    from->write(piece);
    written += piece.size();
    // The rest is the kernel's until the router stops reading.
    ASSERT_FALSE(from->gone());
    if (from->unsent_bytes() > 0) std::this_thread::yield();
  }
  ASSERT_GE(from->unsent_bytes(), 400'000U) << "the router took all " << written << " bytes";
  from->write("data: [DONE]\n\n");
  from->finish();
  const std::string& got = client.read_until("[DONE]");
  EXPECT_EQ(net::test::count(got, "\"text\""), written / piece.size());
}

TEST(Router, SendsNothingNewToAGangThatGoes) {
  std::promise<response_ptr> opened;
  stand_in_gang goes([&](const net::http_request&, response_ptr to) {
    to->begin(200, {{"content-type", "text/event-stream"}});
    to->write(event("a"));
    opened.set_value(std::move(to));
  });
  stand_in_gang comes(answer_well);
  routed router;
  router.find({goes.place("a")});
  ASSERT_TRUE(router.ready());
  net::test::raw_client client(router.listening.port);
  client.send(small_post);
  const response_ptr open = net::test::kept(opened);
  gang_place terminating = goes.place("a");
  terminating.terminating = true;
  router.find({terminating, comes.place("b")});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(router.ask()->status, 200);
  EXPECT_EQ(goes.asked, 1);
  router.find({comes.place("b")});  // its pod is gone from the list; the stream goes on
  for (int i = 0; i < 5; ++i) EXPECT_EQ(router.ask()->status, 200);
  open->write(event("b"));
  open->finish();
  EXPECT_NE(client.read_until("\"text\":\"b\"").find(event("b")), std::string::npos);
  EXPECT_TRUE(eventually([&] {
    return router.metric(R"(troupe_router_gang_ready{gang="a"})") == -1.0;
  })) << "a gang that is gone is forgotten with its last request";
}

TEST(Router, DrainsInPeace) {
  std::promise<response_ptr> opened;
  stand_in_gang gang([&](const net::http_request&, response_ptr to) { opened.set_value(to); });
  routed router;
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  std::thread client([&] {
    const auto reply = router.ask();
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->body, "late");
  });
  const response_ptr open = net::test::kept(opened);
  router.router->drain();
  EXPECT_EQ(net::http_fetch({.url = router.url("/ready")})->status, 503);
  EXPECT_EQ(net::http_fetch({.url = router.url("/health")})->status, 200);
  EXPECT_EQ(router.ask()->status, 503);
  EXPECT_EQ(router.router->open_requests(), 1U);
  open->send(200, {}, "late");
  client.join();
  EXPECT_TRUE(eventually([&] { return router.router->open_requests() == 0; }));
}

// --- models and keys ----------------------------------------------------------------------------

TEST(Router, SendsEachModelToWhoHasIt) {
  stand_in_gang a(answer_well);
  stand_in_gang b(answer_well);
  a.models = R"({"data":[{"id":"small","object":"model"},{"id":"both","object":"model"}]})";
  b.models = R"({"data":[{"id":"large","object":"model"},{"id":"both","object":"model"}]})";
  routed router;
  router.find({a.place("a"), b.place("b")});
  ASSERT_TRUE(eventually([&] {
    const auto list = net::http_fetch({.url = router.url("/v1/models")});
    return list && json::parse(list->body, nullptr, false)["data"].size() == 3;
  }));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(router.ask(R"({"model":"small"})")->status, 200);
  EXPECT_EQ(a.asked, 4);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(router.ask(R"({"model":"large"})")->status, 200);
  EXPECT_EQ(b.asked, 3);
  const auto refused = router.ask(R"({"model":"other"})");
  EXPECT_EQ(refused->status, 404);
  EXPECT_EQ(json::parse(refused->body)["error"]["code"], "model_not_found");
}

TEST(Router, AsksForAKeyAndGivesItsOwn) {
  std::string seen;
  stand_in_gang gang([&](const net::http_request& request, const response_ptr& to) {
    seen = request.header("authorization");
    to->send(200, {}, "ok");
  });
  router_options options;
  options.keys = *serving::api_keys::parse("sk-of-the-router-0123456789", "keys");
  options.gang_authorization = "Bearer sk-of-the-gang";
  routed router(std::move(options));
  router.find({gang.place("g")});
  ASSERT_TRUE(router.ready());
  EXPECT_EQ(router.ask()->status, 401);
  EXPECT_EQ(gang.asked, 0);
  const auto reply =
      net::http_fetch({.method = "POST",
                       .url = router.url("/v1/completions"),
                       .headers = {{"authorization", "Bearer sk-of-the-router-0123456789"}},
                       .body = "{}"});
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(seen, "Bearer sk-of-the-gang");
}

TEST(Router, KnowsItsPaths) {
  routed router;
  EXPECT_EQ(net::http_fetch({.url = router.url("/etc/passwd")})->status, 404);
  EXPECT_EQ(net::http_fetch({.url = router.url("/version")})->status, 200);
  EXPECT_EQ(net::http_fetch({.method = "POST", .url = router.url("/metrics")})->status, 404);
}

}  // namespace
}  // namespace troupe::router
