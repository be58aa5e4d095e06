#include "net/http_server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/net/http_rig.hpp"

namespace troupe::net {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace): the rig of these tests

std::string get(std::string_view target, std::string_view fields = "") {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  rig server(echo);
  raw_client client(server);
  client.send(get("/a?b=c"));
  client.read_until("[]");
  client.send("POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz");
  const std::string& got = client.read_until("[xyz]");
  EXPECT_EQ(status_of(got), 200);
  EXPECT_NE(got.find("content-length: 13\r\n"), got.npos) << got;
  EXPECT_EQ(got.find("date: "), got.npos) << "no clock was given: " << got;
  EXPECT_NE(got.find("GET /a?b=c []"), got.npos) << got;
  EXPECT_EQ(got.find("connection: close"), got.npos) << got;
  EXPECT_EQ(server.server->counters().requests, 2U);
  EXPECT_EQ(server.server->counters().connections, 1U);
  EXPECT_TRUE(eventually([&] { return server.server->counters().bytes_sent == got.size(); }));
}

TEST(HttpServer, TellsTheHandlerWhoAsks) {
  std::promise<http_request> seen;
  rig server([&](http_request request, const std::shared_ptr<response>& answer) {
    echo(request, answer);
    seen.set_value(std::move(request));
  });
  raw_client client(server);
  client.send(get("/", "X-A: 1\r\nx-a: 2\r\n"));
  const http_request request = kept(seen);
  EXPECT_EQ(request.peer, "127.0.0.1");
  EXPECT_TRUE(request.loopback);
  EXPECT_EQ(request.header("x-a"), "1");
  EXPECT_EQ(request.headers.size(), 3U);
}

TEST(HttpServer, AnswersPipelinedRequestsInOrderWhateverTheOrderOfTheAnswers) {
  std::mutex mutex;
  std::vector<std::pair<std::string, std::shared_ptr<response>>> open;
  rig server([&](http_request request, std::shared_ptr<response> answer) {
    if (request.target == "/now") {
      echo(request, answer);
      return;
    }
    const std::lock_guard lock(mutex);
    open.emplace_back(request.target, std::move(answer));
  });
  raw_client client(server);
  client.send(get("/first") + get("/now") + get("/last"));
  const auto next = [&](const std::string& target) {
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex);
      return !open.empty();
    }));
    const std::lock_guard lock(mutex);
    EXPECT_EQ(open.front().first, target);
    open.front().second->send(200, {}, "answer to " + target);
    open.clear();
  };
  next("/first");
  next("/last");
  const std::string& got = client.read_until("answer to /last");
  const auto first = got.find("answer to /first");
  const auto now = got.find("GET /now");
  ASSERT_NE(first, got.npos) << got;
  ASSERT_NE(now, got.npos) << got;
  EXPECT_LT(first, now);
  EXPECT_LT(now, got.find("answer to /last"));
}

TEST(HttpServer, LosesNoPipelinedRequestOfMany) {
  rig server(echo);
  raw_client client(server);
  std::string requests;
  for (int i = 0; i < 5'000; ++i) requests += get(fmt::format("/{}", i));
  std::thread sender([&] { client.send(requests); });
  client.read_until([](const std::string& got) { return got.ends_with("GET /4999 []"); });
  sender.join();
  EXPECT_EQ(count(client.received(), "HTTP/1.1 200 OK"), 5'000U);
  std::size_t at = 0;
  for (int i = 0; i < 5'000; ++i) {
    at = client.received().find(fmt::format("GET /{} []", i), at);
    ASSERT_NE(at, std::string::npos) << "answer " << i << " is lost or out of order";
  }
}

TEST(HttpServer, RefusesMalformedRequestsAndEndsTheConnection) {
  rig server(echo);
  raw_client client(server);
  client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n" + get("/smuggled"));
  const std::string& got = client.read_to_end();
  EXPECT_EQ(status_of(got), 400) << got;
  EXPECT_NE(got.find("connection: close"), got.npos);
  EXPECT_EQ(count(got, "HTTP/1.1"), 1U + count(got, "not HTTP/1.1")) << got;
  EXPECT_EQ(server.server->counters().refused, 1U);
  EXPECT_EQ(server.server->counters().requests, 0U);
}

TEST(HttpServer, MakesItsOwnAnswersLookLikeTheApplications) {
  auto socket = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(socket) << socket.error().message;
  auto server = http_server::start(
      {.listening = socket->descriptor.get(),
       .handler = [](http_request, const std::shared_ptr<response>&) {},
       .error_body =
           [](int status, std::string_view what) {
             return std::pair("application/json", fmt::format(R"({{"{}":"{}"}})", status, what));
           },
       .wall_clock = [] { return std::time_t{784111777}; }});
  ASSERT_TRUE(server) << server.error().message;
  raw_client malformed(socket->port);
  malformed.send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_NE(malformed.read_to_end().find("{\"400\":\"no Host header\"}"), std::string::npos);
  raw_client unanswered(socket->port);
  unanswered.send(get("/"));
  const std::string& got = unanswered.read_to_end();
  EXPECT_NE(got.find("application/json"), got.npos) << got;
  EXPECT_NE(got.find("{\"500\""), got.npos) << got;
  EXPECT_NE(got.find("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), got.npos) << got;
}

TEST(HttpServer, RefusesALongBodyBeforeReadingItAndTheAnswerArrives) {
  rig server(echo, {.body_bytes_max = 1000});
  raw_client client(server);
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
  client.read_until("\r\n\r\n");
  EXPECT_EQ(status_of(client.received()), 413);
  client.send(std::string(2'000'000, 'x'));  // the client does not know yet
  client.end_output();
  EXPECT_NE(client.read_to_end().find("too long"), std::string::npos);
  EXPECT_FALSE(client.was_reset());
}

TEST(HttpServer, SendsContinueOnceTheHeadIsAccepted) {
  rig server(echo);
  raw_client client(server);
  client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("hi");
  client.read_until("[hi]");
  EXPECT_NE(client.received().find("HTTP/1.1 200 OK"), std::string::npos);
}

TEST(HttpServer, DoesNotSendContinueForABodyItRefuses) {
  rig server(echo, {.body_bytes_max = 10});
  raw_client client(server);
  client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
  EXPECT_EQ(status_of(client.read_to_end()), 413);
}

TEST(HttpServer, AnswersHeadWithoutABody) {
  rig server(echo);
  raw_client client(server);
  client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n" + get("/y"));
  const std::string& got = client.read_until("GET /y []");
  EXPECT_EQ(got.find("HEAD /x"), got.npos) << got;
  EXPECT_NE(got.find("content-length: 10\r\n"), got.npos) << got;
}

TEST(HttpServer, EndsTheConnectionWhereTheClientAsksForIt) {
  rig server(echo);
  for (const std::string& request :
       {get("/", "Connection: close\r\n"), std::string("GET / HTTP/1.0\r\n\r\n")}) {
    raw_client client(server);
    client.send(request);
    const std::string& got = client.read_to_end();
    EXPECT_TRUE(client.ended());
    EXPECT_NE(got.find("connection: close"), got.npos) << got;
    EXPECT_NE(got.find("GET / []"), got.npos) << got;
  }
}

TEST(HttpServer, DoesNotLoseTheLastAnswerToBytesThatComeAfterIt) {
  rig server(echo);
  raw_client client(server);
  client.send(get("/", "Connection: close\r\n"));
  client.read_until([](const std::string& got) { return !got.empty(); });
  client.send(std::string(500'000, 'x'));  // to a socket that was closed: a reset
  client.end_output();
  EXPECT_EQ(status_of(client.read_to_end()), 200);
  EXPECT_FALSE(client.was_reset());
}

TEST(HttpServer, CannotBeMadeToSplitAnAnswer) {
  rig server([](const http_request&, const std::shared_ptr<response>& answer) {
    answer->send(200,
                 {{"x-echo", "a\r\nx-evil: 1\r\n\r\n<html>"},
                  {"x bad", "1"},
                  {"Content-Length", "1"},
                  {"transfer-encoding", "chunked"}},
                 "body");
  });
  raw_client client(server);
  client.send(get("/"));
  const std::string& got = client.read_until("body");
  EXPECT_NE(got.find("x-echo: a  x-evil: 1    <html>\r\n"), got.npos) << got;
  EXPECT_EQ(got.find("x bad"), got.npos) << got;
  EXPECT_EQ(count(got, "ontent-"), 1U) << got;
  EXPECT_EQ(got.find("chunked"), got.npos) << got;
}

TEST(HttpServer, SendsNoBodyWithStatus204) {
  rig server([](const http_request&, const std::shared_ptr<response>& answer) {
    answer->send(204, {}, "");
  });
  raw_client client(server);
  client.send(get("/") + get("/"));
  client.read_until([](const std::string& got) { return count(got, "\r\n\r\n") == 2; });
  EXPECT_EQ(client.received().find("content-length"), std::string::npos);
}

TEST(HttpServer, Answers500ForAResponseThatIsLetGoAndForAThrowingHandler) {
  rig server([](const http_request& request, const std::shared_ptr<response>&) {
    if (request.target == "/throw") throw std::runtime_error("a defect");
  });
  for (const char* target : {"/drop", "/throw"}) {
    raw_client client(server);
    client.send(get(target));
    EXPECT_EQ(status_of(client.read_to_end()), 500) << target;
  }
}

// --- patience ----------------------------------------------------------------------------------

constexpr http_limits impatient = {.header_patience = milliseconds(200),
                                   .body_patience = milliseconds(300),
                                   .idle_patience = milliseconds(200)};

TEST(HttpServer, WaitsForHeadersOnlySoLongHoweverTheyTrickle) {
  rig server(echo, impatient);
  raw_client client(server);
  client.send("GET / HTTP/1.1\r\nHost: a\r\n");
  const auto begin = steady_clock::now();
  while (!client.ended() && steady_clock::now() - begin < patience) {
    client.send("X: y\r\n");
    const auto turn = steady_clock::now() + milliseconds(20);
    client.read_until(
        [&](const std::string& got) { return !got.empty() || steady_clock::now() > turn; });
    if (!client.received().empty()) break;
  }
  EXPECT_EQ(status_of(client.read_to_end()), 408);
  EXPECT_LT(steady_clock::now() - begin, milliseconds(200) * 10);
}

TEST(HttpServer, WaitsForABodyOnlySoLong) {
  rig server(echo, impatient);
  raw_client client(server);
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  const std::string& got = client.read_to_end();
  EXPECT_EQ(status_of(got), 408) << got;
  EXPECT_NE(got.find("the body did not come"), got.npos) << got;
}

TEST(HttpServer, ClosesIdleAndSilentConnectionsWithoutAWord) {
  rig server(echo, impatient);
  raw_client silent(server);
  EXPECT_EQ(silent.read_to_end(), "");
  raw_client idle(server);
  idle.send(get("/"));
  idle.read_until("[]");
  const std::string answered = idle.received();
  EXPECT_EQ(idle.read_to_end(), answered);
  EXPECT_TRUE(eventually([&] { return server.server->counters().connections == 0; }));
  EXPECT_EQ(server.server->counters().refused, 0U);
}

TEST(HttpServer, HasNoPatienceToLoseWhileAHandlerWorks) {
  std::promise<std::shared_ptr<response>> taken;
  rig server([&](const http_request&,
                 std::shared_ptr<response> answer) { taken.set_value(std::move(answer)); },
             impatient);
  raw_client client(server);
  client.send(get("/"));
  const auto answer = kept(taken);
  const auto later = steady_clock::now() + milliseconds(700);
  EXPECT_TRUE(eventually([&] { return steady_clock::now() > later; }));
  answer->send(200, {}, "late");
  EXPECT_NE(client.read_until("late").find("200 OK"), std::string::npos);
}

// --- bounds over all connections ---------------------------------------------------------------

TEST(HttpServer, TurnsConnectionsAboveTheBoundAway) {
  rig server(echo, {.connections_max = 2});
  raw_client one(server);
  raw_client two(server);
  one.send(get("/1"));
  one.read_until("[]");
  two.send(get("/2"));
  two.read_until("[]");
  raw_client three(server);
  three.send(get("/3"));
  const std::string& got = three.read_to_end();
  EXPECT_EQ(status_of(got), 503);
  EXPECT_NE(got.find("retry-after: 1"), got.npos);
  EXPECT_NE(got.find("too many connections are open"), got.npos);
  EXPECT_EQ(server.server->counters().connections, 2U);
  EXPECT_EQ(server.server->counters().requests, 2U);
  one.close();
  EXPECT_TRUE(eventually([&] { return server.server->counters().connections == 1; }));
  raw_client four(server);
  four.send(get("/4"));
  EXPECT_EQ(status_of(four.read_until("GET /4 []")), 200);
}

TEST(HttpServer, TurnsManyAwayAndServesThoseItHas) {
  rig server(echo, {.connections_max = 1});
  raw_client served(server);
  served.send(get("/1"));
  served.read_until("[]");
  std::vector<std::unique_ptr<raw_client>> others;
  for (int i = 0; i < 300; ++i) others.push_back(std::make_unique<raw_client>(server));
  served.send(get("/2"));
  EXPECT_EQ(status_of(served.read_until("GET /2 []")), 200);
  for (const auto& other : others) {
    EXPECT_EQ(status_of(other->read_to_end()), 503);
    other->close();
  }
}

TEST(HttpServer, BoundsTheBodiesBeingReadOfAllConnectionsTogether) {
  rig server(echo, {.body_bytes_max = 1000, .bodies_bytes_max = 1500});
  raw_client holds(server);
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
  holds.send(head + std::string(999, 'x'));
  // Its bytes are counted once they are read: a second connection is one body too much then.
  EXPECT_TRUE(eventually([&] {
    raw_client late(server);
    late.send(head + std::string(999, 'y'));
    late.end_output();
    const std::string& got = late.read_to_end();
    return status_of(got) == 503 && got.find("retry-after: 1") != got.npos;
  }));
  holds.send("x");
  EXPECT_EQ(status_of(holds.read_until("]")), 200);
  raw_client after(server);
  after.send(head + std::string(1000, 'z'));
  EXPECT_EQ(status_of(after.read_until("]")), 200);
}

TEST(HttpServer, ServesManyConnectionsAtOnce) {
  rig server(echo);
  constexpr int threads = 4;
  constexpr int connections = 50;
  std::atomic<int> answered = 0;
  std::vector<std::thread> clients;
  for (int t = 0; t < threads; ++t) {
    clients.emplace_back([&, t] {
      std::vector<raw_client> own;
      for (int i = 0; i < connections; ++i) own.emplace_back(server);
      for (int round = 0; round < 5; ++round) {
        for (auto& one : own) one.send(get(fmt::format("/{}", t)));
        for (auto& one : own) {
          one.received().clear();
          one.read_until(fmt::format("GET /{} []", t));
          if (status_of(one.received()) == 200) ++answered;
        }
      }
    });
  }
  for (auto& one : clients) one.join();
  EXPECT_EQ(answered, threads * connections * 5);
}

// --- what starts and ends ----------------------------------------------------------------------

TEST(HttpServer, RefusesADescriptorThatDoesNotListen) {
  for (const int descriptor : {-1, 0}) {
    const auto server = http_server::start({.listening = descriptor, .handler = echo});
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().code, base::error_code::invalid_argument);
    EXPECT_NE(server.error().message.find("not a listening socket"), std::string::npos);
  }
}

TEST(HttpServer, TakesABlockingListeningSocketAndDoesNotBlock) {
  auto socket = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(socket) << socket.error().message;
  const int flags = ::fcntl(socket->descriptor.get(), F_GETFL);
  ASSERT_EQ(::fcntl(socket->descriptor.get(), F_SETFL, flags & ~O_NONBLOCK), 0);
  auto server = http_server::start({.listening = socket->descriptor.get(), .handler = echo});
  ASSERT_TRUE(server) << server.error().message;
  raw_client client(socket->port);
  client.send(get("/"));
  EXPECT_EQ(status_of(client.read_until("[]")), 200);
}

TEST(HttpServer, LeavesConnectionsToTheNextProcessWhenItStops) {
  auto socket = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(socket) << socket.error().message;
  const auto start = [&] {
    return http_server::start({.listening = socket->descriptor.get(), .handler = echo});
  };
  auto first = start();
  ASSERT_TRUE(first);
  (*first)->stop(milliseconds(0));
  raw_client waiting(socket->port);
  waiting.send(get("/queued"));
  auto second = start();
  ASSERT_TRUE(second);
  EXPECT_EQ(status_of(waiting.read_until("GET /queued []")), 200);
}

TEST(HttpServer, RunsPostedCallsOnItsThreadUntilItHasStopped) {
  rig server(echo);
  std::promise<std::thread::id> ran;
  ASSERT_TRUE(server.server->post([&] { ran.set_value(std::this_thread::get_id()); }));
  EXPECT_NE(kept(ran), std::this_thread::get_id());
  std::atomic<int> promised = 0;
  std::atomic<int> done = 0;
  std::thread poster([&] {
    while (server.server->post([&] { ++done; })) ++promised;
  });
  EXPECT_TRUE(eventually([&] { return done > 100; }));
  server.server->stop(milliseconds(0));
  poster.join();
  EXPECT_EQ(promised, done);
  server.server->stop(milliseconds(0));  // again: nothing
}

TEST(HttpServer, TellsHowLongItsLoopStoodStill) {
  std::promise<void> release;
  auto released = release.get_future().share();
  rig server([&](const http_request& request, const std::shared_ptr<response>& answer) {
    released.wait();
    echo(request, answer);
  });
  EXPECT_LT(server.server->loop_age(), milliseconds(2'000));
  raw_client client(server);
  client.send(get("/"));
  EXPECT_TRUE(eventually([&] { return server.server->loop_age() > milliseconds(300); }));
  release.set_value();
  EXPECT_TRUE(eventually([&] { return server.server->loop_age() < milliseconds(200); }));
}

// --- bytes from anybody ------------------------------------------------------------------------

TEST(HttpServer, SurvivesMutatedRequestsOnRealSockets) {
  constexpr std::uint64_t seed = 41;
  std::mt19937_64 random(seed);
  rig server(echo, {.header_patience = milliseconds(5'000)});
  const std::string valid =
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" +
      get("/tail", "Connection: close\r\n");
  for (int i = 0; i < 3'000; ++i) {
    std::string bytes = valid;
    for (std::size_t change = random() % 4; change > 0; --change) {
      bytes[random() % bytes.size()] = static_cast<char>(random() % 256);
    }
    raw_client client(server);
    client.send(bytes);
    client.end_output();
    const std::string& got = client.read_to_end();
    ASSERT_TRUE(client.ended()) << "seed " << seed << " case " << i << ":\n" << bytes;
    ASSERT_TRUE(got.empty() || status_of(got) != 0) << "seed " << seed << " case " << i;
  }
  raw_client client(server);
  client.send(get("/"));
  EXPECT_EQ(status_of(client.read_until("[]")), 200);
  EXPECT_GT(server.server->counters().refused, 100U);
}

}  // namespace
}  // namespace troupe::net
