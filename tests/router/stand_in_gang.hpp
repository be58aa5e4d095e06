// A gang of the router's tests: a real HTTP server whose answers are the test's, and the router
// with its clients before them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "router/router.hpp"
#include "tests/net/http_rig.hpp"

namespace troupe::router::test {

using net::test::eventually;
using std::chrono::milliseconds;
using response_ptr = std::shared_ptr<net::response>;

inline std::string event(const std::string& text) {
  return R"(data: {"choices":[{"index":0,"text":")" + text + R"("}]})" + "\n\n";
}

class stand_in_gang {
 public:
  using work = std::function<void(const net::http_request&, response_ptr)>;

  explicit stand_in_gang(work answer)
      : answer_(std::move(answer)),
        server_([this](auto request, auto to) { handle(request, std::move(to)); }) {}

  std::atomic<int> ready_status{200};
  std::atomic<bool> silent{false};  // takes requests and answers none
  std::atomic<int> asked{0};        // requests that are no probes
  std::atomic<int> left{0};         // answers whose reader went
  std::string models = R"({"data":[{"id":"m","object":"model"}]})";

  [[nodiscard]] gang_place place(const std::string& name) const {
    return {.name = name, .peer = net::peer_at("127.0.0.1", server_.listening.port)};
  }
  // Nobody listens there any more.
  void stop() {
    server_.server->stop(milliseconds(0));
    server_.listening.descriptor.reset();
  }

 private:
  void handle(const net::http_request& request, response_ptr to) {
    if (silent) return unanswered_.push_back(std::move(to));
    if (request.path() == "/ready") return to->send(ready_status, {}, R"({"reason":"told so"})");
    if (request.path() == "/v1/models") return to->send(200, {}, models);
    ++asked;
    to->on_gone([this] { ++left; });
    answer_(request, std::move(to));
  }

  const work answer_;
  std::vector<response_ptr> unanswered_;
  net::test::rig server_;
};

struct routed {
  explicit routed(router_options given = {})
      : log(*base::logger::make({.role = "router", .level = base::log_level::off})) {
    router_options options = std::move(given);
    const auto loop = std::make_shared<net::event_loop>();
    options.loop = loop;
    options.log = &log;
    if (!options.policy) options.policy = std::make_unique<least_tokens_policy>();
    options.probes.interval = milliseconds(20);
    options.probes.suspect_interval = milliseconds(20);
    router = *http_router::make(std::move(options));
    listening = *base::listen_on({.host = "127.0.0.1"});
    net::http_server_options http{
        .listening = listening.descriptor.get(), .handler = {}, .loop = loop};
    http.handler = [this](auto request, auto to) {
      router->handle(std::move(request), std::move(to));
    };
    server = *net::http_server::start(std::move(http));
    router->start(*server);
  }
  routed(const routed&) = delete;
  routed& operator=(const routed&) = delete;
  ~routed() {
    server->stop(milliseconds(0));
    router.reset();
  }

  [[nodiscard]] std::string url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(listening.port) + path;
  }
  [[nodiscard]] base::result<net::http_reply> ask(
      const std::string& body = R"({"prompt":"x"})") const {
    return net::http_fetch({.method = "POST", .url = url("/v1/completions"), .body = body});
  }
  void find(std::vector<gang_place> places) const { router->set_gangs(std::move(places)); }
  [[nodiscard]] bool ready() const {
    return eventually([&] { return router->ready(); });
  }
  // Both are ready: what follows may go to either.
  [[nodiscard]] bool both_ready() const {
    return eventually([&] {
      return metric(R"(troupe_router_gang_ready{gang="a"})") == 1.0 &&
             metric(R"(troupe_router_gang_ready{gang="b"})") == 1.0;
    });
  }
  // The value of a metric with these labels, as /metrics writes it.
  [[nodiscard]] double metric(const std::string& name) const {
    const auto page = net::http_fetch({.url = url("/metrics")});
    const std::size_t at = page ? page->body.find("\n" + name) : std::string::npos;
    if (at == std::string::npos) return -1.0;
    const std::size_t value = page->body.find(' ', page->body.find('}', at));
    return std::stod(page->body.substr(value));
  }

  base::logger log;
  std::unique_ptr<http_router> router;
  base::listening_socket listening;
  std::unique_ptr<net::http_server> server;
};

}  // namespace troupe::router::test
