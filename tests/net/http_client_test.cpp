#include "net/http_client.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stop_token>
#include <string>
#include <thread>

#include "tests/net/http_rig.hpp"

namespace troupe::net {
namespace {

using namespace test;  // NOLINT(google-build-using-namespace): the rig of these tests
using base::error_code;

// A server that sends fixed bytes to the first client, whatever it asks.
class canned_server {
 public:
  explicit canned_server(std::string bytes, bool hold = false) {
    auto socket = base::listen_on({.host = "127.0.0.1"});
    if (!socket) throw std::runtime_error(socket.error().message);
    socket_ = std::move(*socket);
    thread_ = std::thread([this, bytes = std::move(bytes), hold] {
      const base::fd client(::accept(socket_.descriptor.get(), nullptr, nullptr));
      std::array<char, 4096> asked;
      (void)::recv(client.get(), asked.data(), asked.size(), 0);
      (void)::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (hold) released_.get_future().wait();
    });
  }
  ~canned_server() {
    released_.set_value();
    thread_.join();
  }
  [[nodiscard]] std::string url() const {
    return "http://127.0.0.1:" + std::to_string(socket_.port) + "/";
  }

 private:
  base::listening_socket socket_;
  std::promise<void> released_;
  std::thread thread_;
};

TEST(HttpClient, FetchesFromNumericAndNamedHosts) {
  rig server(echo);
  for (const std::string host : {"127.0.0.1", "localhost"}) {
    const auto reply =
        http_fetch({.method = "POST",
                    .url = "http://" + host + ":" + std::to_string(server.listening.port) + "/a?b",
                    .headers = {{"X-Test", "1"}},
                    .body = "hello"});
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200);
    EXPECT_EQ(reply->body, "POST /a?b [hello]");
    EXPECT_EQ(reply->header("content-type"), "text/plain");
  }
}

TEST(HttpClient, ReturnsAnswersOfAnyStatusAndOfHead) {
  rig server([](const http_request& request, const std::shared_ptr<response>& answer) {
    answer->send(request.method == "HEAD" ? 204 : 404, {}, request.method == "HEAD" ? "" : "none");
  });
  EXPECT_EQ(http_fetch({.url = server.url("/")})->body, "none");
  EXPECT_EQ(http_fetch({.method = "HEAD", .url = server.url("/")})->status, 204);
}

TEST(HttpClient, HandsOutPiecesAsTheyCome) {
  std::promise<std::shared_ptr<response>> taken;
  rig server([&](const http_request&, std::shared_ptr<response> answer) {
    answer->begin(200, {{"x-a", "b"}});
    answer->write("0 ");
    taken.set_value(std::move(answer));
  });
  std::shared_ptr<response> open;
  std::string got;
  bool head_first = false;
  const auto reply = http_stream(
      {.url = server.url("/")},
      {.head =
           [&](const http_reply& head) {
             head_first = got.empty() && head.status == 200 && head.header("x-a") == "b";
             open = kept(taken);
             return true;
           },
       .piece = [&](std::string_view bytes) {  // the next piece is written when this one has come
         got += bytes;
         if (got == "0 ") open->write("1 ");
         if (got == "0 1 ") open->finish();
         return true;
       }});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_TRUE(head_first);
  EXPECT_EQ(got, "0 1 ");
  EXPECT_EQ(reply->body, "");
}

TEST(HttpClient, ACallbackThatReturnsFalseClosesTheConnection) {
  std::promise<void> gone;
  std::shared_ptr<response> open;
  rig server([&](const http_request&, std::shared_ptr<response> answer) {
    answer->on_gone([&] { gone.set_value(); });
    answer->begin(200, {});
    answer->write("token");
    open = std::move(answer);
  });
  const auto reply =
      http_stream({.url = server.url("/")}, {.piece = [](std::string_view) { return false; }});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::cancelled);
  kept(gone);
}

TEST(HttpClient, IsStoppedFromAnotherThreadWhileNothingComes) {
  std::promise<std::shared_ptr<response>> taken;
  rig server([&](const http_request&, std::shared_ptr<response> answer) {
    taken.set_value(std::move(answer));
  });
  std::stop_source source;
  std::promise<void> gone;
  std::thread stopper([&] {
    const auto answer = kept(taken);
    answer->on_gone([&] { gone.set_value(); });
    source.request_stop();
    kept(gone);
  });
  const auto reply = http_fetch({.url = server.url("/"), .stop = source.get_token()});
  stopper.join();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::cancelled);
}

TEST(HttpClient, NeverPassesItsDeadlineNorItsPatienceWithSilence) {
  canned_server silent("", true);
  const auto begin = steady_clock::now();
  auto reply = http_fetch({.url = silent.url(), .deadline = milliseconds(200)});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::deadline_exceeded);
  EXPECT_TRUE(reply.error().retryable);
  canned_server half("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true);
  reply = http_fetch({.url = half.url(), .silence_patience = milliseconds(200)});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::deadline_exceeded);
  EXPECT_LT(steady_clock::now() - begin, milliseconds(4'000));
}

TEST(HttpClient, TellsAnAnswerThatEndedShortFromAWholeOne) {
  for (const char* bytes :
       {"", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"}) {
    canned_server server(bytes);
    const auto reply = http_fetch({.url = server.url()});
    ASSERT_FALSE(reply) << bytes;
    EXPECT_EQ(reply.error().code, error_code::unavailable) << reply.error().message;
  }
  canned_server old("HTTP/1.0 200 OK\r\n\r\nto the end");
  EXPECT_EQ(http_fetch({.url = old.url()})->body, "to the end");
}

TEST(HttpClient, BoundsWhatItTakes) {
  rig server([](const http_request&, const std::shared_ptr<response>& answer) {
    answer->send(200, {{"x-long", std::string(5'000, 'x')}}, std::string(100'000, 'x'));
  });
  const std::string url = server.url("/");
  EXPECT_EQ(http_fetch({.url = url, .body_bytes_max = 100'000})->body.size(), 100'000U);
  auto reply = http_fetch({.url = url, .body_bytes_max = 99'999});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::resource_exhausted);
  reply = http_fetch({.url = url, .head_bytes_max = 5'000});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::resource_exhausted) << reply.error().message;
}

TEST(HttpClient, NamesWhatIsNotHttp) {
  canned_server server("220 mail.example ESMTP\r\n\r\n");
  const auto reply = http_fetch({.url = server.url()});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::data_loss) << reply.error().message;
}

TEST(HttpClient, SkipsInterimAnswers) {
  canned_server server(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(http_fetch({.url = server.url()})->body, "ok");
}

TEST(HttpClient, SaysWhichPortRefused) {
  std::string url;
  {
    auto socket = base::listen_on({.host = "127.0.0.1"});
    ASSERT_TRUE(socket);
    url = "http://127.0.0.1:" + std::to_string(socket->port);
  }
  const auto reply = http_fetch({.url = url});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, error_code::unavailable);
  EXPECT_NE(url.find(reply.error().message.substr(0, 10)), std::string::npos)
      << reply.error().message;
}

TEST(HttpClient, TakesAUrlApart) {
  const auto url = parse_http_url("HTTP://[::1]:8080/a?b#c");
  ASSERT_TRUE(url) << url.error().message;
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "8080");
  EXPECT_EQ(url->authority, "[::1]:8080");
  EXPECT_EQ(url->target, "/a?b");
  EXPECT_EQ(parse_http_url("http://a")->target, "/");
  EXPECT_EQ(parse_http_url("http://a")->port, "80");
  EXPECT_FALSE(url->tls);
  EXPECT_TRUE(parse_http_url("HTTPS://a")->tls);
  EXPECT_EQ(parse_http_url("https://a")->port, "443");
  for (const char* bad : {"", "a", "http://", "http://:80", "http://u@a", "http://a:0",
                          "http://a:x", "http://a:65536", "http://a:", "http://a b/", "http://a/ b",
                          "http://a/\r\nx: y", "ftp://a", "http://[::1", "http://]:80"}) {
    const auto refused = parse_http_url(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().code, error_code::invalid_argument) << bad;
  }
}

TEST(HttpClient, RefusesToSplitARequest) {
  rig server(echo);
  const std::string url = server.url("/");
  EXPECT_FALSE(http_fetch({.method = "GET / HTTP/1.1\r\nx:", .url = url}));
  EXPECT_FALSE(http_fetch({.url = url, .headers = {{"x", "a\r\ny: b"}}}));
  EXPECT_FALSE(http_fetch({.url = url, .headers = {{"x y", "a"}}}));
  EXPECT_EQ(server.server->counters().requests, 0U);
}

}  // namespace
}  // namespace troupe::net
