// Many calls on one loop: what is kept, what is made again, what ends it.
#include "net/http_pool.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/net/http_rig.hpp"

namespace troupe::net {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace): the rig of these tests
using base::error_code;

http_peer peer_at(std::uint16_t port) { return net::peer_at("127.0.0.1", port); }

struct outcome {
  http_reply reply;
  bool ended = false;
  std::optional<base::error> error;
};

struct pool_rig {
  explicit pool_rig(http_pool_options options = {}) : pool(loop, options) {}

  // Makes a call whose outcome is filled in while the loop runs.
  std::shared_ptr<pool_call> call(pool_request request, outcome& into) {
    auto made = pool.call(std::move(request),
                          {.head = [&](const http_reply& head) { into.reply = head; },
                           .piece = [&](std::string_view bytes) { into.reply.body += bytes; },
                           .end =
                               [&](const std::optional<base::error>& error) {
                                 into.ended = true;
                                 into.error = error;
                               }});
    EXPECT_TRUE(made) << made.error().message;
    return *made;
  }
  outcome fetch(pool_request request) {
    outcome of;
    call(std::move(request), of);
    loop->run();
    return of;
  }

  std::shared_ptr<event_loop> loop = std::make_shared<event_loop>();
  http_pool pool;
};

TEST(HttpPool, GivesHeadAndBody) {
  rig server(echo);
  pool_rig clients;
  const outcome of = clients.fetch({.peer = peer_at(server.listening.port),
                                    .method = "POST",
                                    .target = "/a?b",
                                    .body = std::make_shared<const std::string>("body")});
  EXPECT_FALSE(of.error) << of.error->message;
  EXPECT_EQ(of.reply.status, 200);
  EXPECT_EQ(of.reply.header("content-type"), "text/plain");
  EXPECT_EQ(of.reply.body, "POST /a?b [body]");
}

TEST(HttpPool, ManyCallsRunAtOnce) {
  std::vector<std::shared_ptr<response>> held;
  rig server([&](const http_request&, std::shared_ptr<response> to) {
    held.push_back(std::move(to));
    if (held.size() < 50) return;
    for (const auto& one : held) one->send(200, {}, std::string(100'000, 'x'));
  });
  pool_rig clients;
  std::vector<outcome> all(50);
  for (outcome& of : all) clients.call({.peer = peer_at(server.listening.port)}, of);
  clients.loop->run();
  for (const outcome& of : all) {
    EXPECT_FALSE(of.error);
    EXPECT_EQ(of.reply.body.size(), 100'000U);
  }
}

TEST(HttpPool, KeepsAConnectionForTheNextCall) {
  rig server([](const http_request& request, const std::shared_ptr<response>& to) {
    to->send(200, {}, request.header("connection").empty() ? "kept" : "closed");
  });
  pool_rig clients;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(clients.fetch({.peer = peer_at(server.listening.port)}).reply.body, "kept");
  }
  EXPECT_EQ(server.server->counters().connections, 1U);
  clients.pool.forget(peer_at(server.listening.port).authority);
  EXPECT_TRUE(eventually([&] { return server.server->counters().connections == 0; }));

  pool_rig once({.keep_alive = false});
  EXPECT_EQ(once.fetch({.peer = peer_at(server.listening.port)}).reply.body, "closed");
  EXPECT_TRUE(eventually([&] { return server.server->counters().connections == 0; }));
}

TEST(HttpPool, DoesNotUseAConnectionThatWasClosed) {
  http_limits limits;
  limits.idle_patience = milliseconds(1);
  rig server(echo, limits);
  pool_rig clients;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(clients.fetch({.peer = peer_at(server.listening.port)}).reply.status, 200);
    EXPECT_TRUE(eventually([&] { return server.server->counters().connections == 0; }));
  }
}

TEST(HttpPool, AnAnswerThatEndsEarlyIsNotAskedForAgain) {
  int asked = 0;
  rig server([&](const http_request&, const std::shared_ptr<response>& to) {
    ++asked;
    to->begin(200, {});
    to->write("half");
    to->cut();
  });
  pool_rig clients;
  const outcome of = clients.fetch({.peer = peer_at(server.listening.port)});
  ASSERT_TRUE(of.error);
  EXPECT_EQ(of.error->code, error_code::unavailable);
  EXPECT_TRUE(of.error->retryable);
  EXPECT_EQ(asked, 1);
}

TEST(HttpPool, CancelClosesTheConnection) {
  std::promise<bool> left;
  std::shared_ptr<response> held;
  rig server([&](const http_request&, const std::shared_ptr<response>& to) {
    held = to;
    to->on_gone([&] { left.set_value(true); });
    to->begin(200, {});
    to->write("first");
  });
  pool_rig clients;
  std::shared_ptr<pool_call> call;
  bool ended = false;
  call = *clients.pool.call({.peer = peer_at(server.listening.port)},
                            {.piece = [&](std::string_view) { call->cancel(); },
                             .end = [&](const auto&) { ended = true; }});
  clients.loop->run();
  EXPECT_TRUE(kept(left));
  EXPECT_FALSE(ended) << "who cancels needs no word of it";
}

TEST(HttpPool, ACallThatIsCancelledAtOnceIsNeverMade) {
  rig server(echo);
  pool_rig clients;
  outcome of;
  clients.call({.peer = peer_at(server.listening.port)}, of)->cancel();
  clients.loop->run();
  EXPECT_FALSE(of.ended);
  EXPECT_EQ(server.server->counters().requests, 0U);
}

TEST(HttpPool, PausedItReadsNothing) {
  std::shared_ptr<response> held;
  rig server([&](const http_request&, const std::shared_ptr<response>& to) {
    to->begin(200, {});
    for (int i = 0; i < 10; ++i) to->write(std::string(1000, 'x'));
    to->finish();
  });
  pool_rig clients;
  std::shared_ptr<pool_call> call;
  std::size_t bytes = 0;
  std::size_t at_pause = 0;
  bool ended = false;
  call = *clients.pool.call({.peer = peer_at(server.listening.port)},
                            {.piece =
                                 [&](std::string_view piece) {
                                   bytes += piece.size();
                                   if (at_pause > 0) return;
                                   at_pause = bytes;
                                   call->pause();
                                 },
                             .end = [&](const auto&) { ended = true; }});
  clients.loop->run();  // nothing is left to do while it is paused
  EXPECT_GT(at_pause, 0U);
  EXPECT_EQ(bytes, at_pause);
  EXPECT_FALSE(ended);
  call->resume();
  clients.loop->run();
  EXPECT_EQ(bytes, 10'000U);
  EXPECT_TRUE(ended);
}

TEST(HttpPool, EndsAtItsPatience) {
  std::shared_ptr<response> held;
  rig server([&](const http_request&, const std::shared_ptr<response>& to) { held = to; });
  pool_rig clients;
  const outcome of =
      clients.fetch({.peer = peer_at(server.listening.port), .patience = milliseconds(30)});
  ASSERT_TRUE(of.error);
  EXPECT_EQ(of.error->code, error_code::deadline_exceeded);
}

TEST(HttpPool, TriesEveryAddress) {
  rig server(echo);
  http_peer peer = peer_at(server.listening.port);
  peer.addresses = {"127.0.0.9", "127.0.0.1"};  // nobody listens on the first
  pool_rig clients;
  EXPECT_EQ(clients.fetch({.peer = peer}).reply.status, 200);
  peer.addresses = {"127.0.0.9"};
  peer.authority = "nobody";
  const outcome of = clients.fetch({.peer = peer});
  ASSERT_TRUE(of.error);
  EXPECT_EQ(of.error->code, error_code::unavailable);
  EXPECT_EQ(clients.pool.call({.peer = {.addresses = {"a.name"}, .authority = "a.name"}}, {})
                .error()
                .code,
            error_code::invalid_argument);
}

// The length in the answer to HEAD is that of a body which does not come, after an interim answer
// too.
TEST(HttpPool, WaitsForNoBodyOfAHead) {
  auto listening = base::listen_on({.host = "127.0.0.1"});
  ASSERT_TRUE(listening);
  std::thread server([&] {
    const base::fd client(::accept4(listening->descriptor.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<char, 4096> bytes;
    if (::recv(client.get(), bytes.data(), bytes.size(), 0) <= 0) return;
    const std::string answer =
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
    ::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    ::recv(client.get(), bytes.data(), bytes.size(), 0);  // until the client closes
  });
  {
    pool_rig clients;
    const outcome of = clients.fetch(
        {.peer = peer_at(listening->port), .method = "HEAD", .patience = milliseconds(2000)});
    EXPECT_FALSE(of.error) << of.error->message;
    EXPECT_EQ(of.reply.status, 200);
  }
  server.join();
}

TEST(HttpPool, BoundsAHead) {
  rig server([](const http_request&, const std::shared_ptr<response>& to) {
    to->send(200, {{"x-long", std::string(5000, 'x')}}, "body");
  });
  pool_rig clients({.head_bytes_max = 1000});
  const outcome of = clients.fetch({.peer = peer_at(server.listening.port)});
  ASSERT_TRUE(of.error);
  EXPECT_EQ(of.error->code, error_code::resource_exhausted);
}

}  // namespace
}  // namespace troupe::net
