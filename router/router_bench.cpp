// What a request costs on its way through the router: 2 KB of prompt and 16 tokens, in one piece or
// streamed, before two stand-in gangs that answer at once, or a token to every open stream in each
// step. Gangs, router and clients share the machine; the router's cost is the CPU time of its
// thread.
//
//   router_bench [REQUESTS]
#include <spdlog/fmt/fmt.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/socket.hpp"
#include "net/http_pool.hpp"
#include "router/router.hpp"

namespace {

using namespace troupe;
using clock_type = std::chrono::steady_clock;

constexpr int tokens = 16;
constexpr int at_once = 256;
constexpr std::chrono::milliseconds step{4};
constexpr std::chrono::seconds start_patience{10};

double cpu_seconds() {
  timespec used = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

template <class Value>
Value must(base::result<Value> made) {
  if (!made) throw std::runtime_error(made.error().message);
  return *std::move(made);
}

std::string event_of(int token) {
  return fmt::format(
      R"(data: {{"id":"cmpl-5678876e6059109ea8efb4b00dad0a05","object":"text_completion",)"
      R"("created":1795859578,"model":"demo","system_fingerprint":"fp_b02051ca5ffd",)"
      R"("choices":[{{"index":0,"text":" token{}","logprobs":null,"finish_reason":null}}]}})"
      "\n\n",
      token);
}

// Answers whole, or streams a token a step.
class stand_in_gang {
 public:
  stand_in_gang() : listening_(must(base::listen_on({.host = "127.0.0.1"}))) {
    for (int token = 0; token < tokens; ++token) whole_ += event_of(token);
    net::http_server_options options{.listening = listening_.descriptor.get(), .handler = {}};
    options.handler = [this](const net::http_request& asked, std::shared_ptr<net::response> to) {
      answer(asked, std::move(to));
    };
    server_ = must(net::http_server::start(std::move(options)));
    steps_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        std::this_thread::sleep_for(step);
        take_step();
      }
    });
  }

  [[nodiscard]] router::gang_place place() const {
    const net::http_peer peer = net::peer_at("127.0.0.1", listening_.port);
    return {.name = peer.authority, .peer = peer};
  }

 private:
  struct stream {
    std::shared_ptr<net::response> to;
    int token = 0;
  };

  void answer(const net::http_request& asked, std::shared_ptr<net::response> to) {
    if (asked.method == "GET") return to->send(200, {}, "{}");
    if (asked.target == "/v1/whole") {
      return to->send(200, {{"content-type", "application/json"}}, whole_.substr(0, 600));
    }
    to->begin(200, {{"content-type", "text/event-stream"}});
    const std::lock_guard lock(mutex_);
    streams_.push_back({.to = std::move(to)});
  }

  void take_step() {
    const std::lock_guard lock(mutex_);
    std::erase_if(streams_, [](stream& one) {
      one.to->write(event_of(one.token));
      if (++one.token < tokens) return false;
      one.to->write("data: [DONE]\n\n");
      one.to->finish();
      return true;
    });
  }

  base::listening_socket listening_;
  std::string whole_;
  std::mutex mutex_;
  std::vector<stream> streams_;
  std::unique_ptr<net::http_server> server_;
  std::jthread steps_;
};

class bench_router {
 public:
  bench_router()
      : log_(must(base::logger::make({.role = "router", .level = base::log_level::off}))) {
    const auto loop = std::make_shared<net::event_loop>();
    router::router_options options;
    options.loop = loop;
    options.policy = std::make_unique<router::affinity_policy>();
    options.log = &log_;
    router_ = must(router::http_router::make(std::move(options)));
    listening_ = must(base::listen_on({.host = "127.0.0.1"}));
    net::http_server_options http{
        .listening = listening_.descriptor.get(), .handler = {}, .loop = loop};
    http.handler = [this](net::http_request request, std::shared_ptr<net::response> to) {
      router_->handle(std::move(request), std::move(to));
    };
    server_ = must(net::http_server::start(std::move(http)));
    router_->start(*server_);
    router_->set_gangs({first_.place(), second_.place()});
    const auto deadline = clock_type::now() + start_patience;
    while (!router_->ready()) {
      if (clock_type::now() > deadline) throw std::runtime_error("the gangs are not ready");
      std::this_thread::yield();
    }
  }
  bench_router(const bench_router&) = delete;
  bench_router& operator=(const bench_router&) = delete;
  ~bench_router() {
    server_->stop(std::chrono::milliseconds(0));
    router_.reset();
  }

  [[nodiscard]] double loop_cpu() const {
    std::promise<double> used;
    server_->post([&] { used.set_value(cpu_seconds()); });
    return used.get_future().get();
  }
  [[nodiscard]] net::http_peer peer() const { return net::peer_at("127.0.0.1", listening_.port); }

 private:
  base::logger log_;
  stand_in_gang first_;
  stand_in_gang second_;
  base::listening_socket listening_;
  std::unique_ptr<router::http_router> router_;
  std::unique_ptr<net::http_server> server_;
};

// Asks so many times, at_once at a time, over kept connections; throws when one fails.
void ask(const net::http_peer& peer, const std::string& target, int requests) {
  const auto loop = std::make_shared<net::event_loop>();
  net::http_pool pool(loop, {.idle_connections_max = at_once});
  int begun = 0;
  std::string failed;
  std::function<void()> next = [&] {
    if (begun == requests || !failed.empty()) return;
    const std::string prompt = fmt::format("{:08d} ", begun++) + std::string(2000, 'x');
    const auto status = std::make_shared<int>(0);
    must(pool.call({.peer = peer,
                    .method = "POST",
                    .target = target,
                    .body = std::make_shared<const std::string>(fmt::format(
                        R"({{"model":"demo","max_tokens":{},"prompt":"{}"}})", tokens, prompt))},
                   {.head = [status](const net::http_reply& head) { *status = head.status; },
                    .end =
                        [&, status](const std::optional<base::error>& error) {
                          if (error) failed = error->message;
                          if (*status != 200) failed = fmt::format("status {}", *status);
                          next();
                        }}));
  };
  for (int i = 0; i < at_once; ++i) next();
  loop->run();
  if (!failed.empty()) throw std::runtime_error(failed);
}

void measure(const bench_router& router, const char* name, const std::string& target,
             int requests) {
  ask(router.peer(), target, at_once);  // opens the connections
  const double cpu = router.loop_cpu();
  const auto begin = clock_type::now();
  ask(router.peer(), target, requests);
  const double wall_s = std::chrono::duration<double>(clock_type::now() - begin).count();
  const double used_s = router.loop_cpu() - cpu;
  fmt::print(
      "{:9} {:6} requests: {:7.0f} a second of the router's core, {:5.1f} us each "
      "({:.0f} a second here, {} at once)\n",
      name, requests, requests / used_s, used_s / requests * 1e6, requests / wall_s, at_once);
}

}  // namespace

int main(int argc, char** argv) {
  const int requests = argc > 1 ? std::atoi(argv[1]) : 20'000;
  try {
    const bench_router router;
    measure(router, "whole", "/v1/whole", requests);
    measure(router, "streamed", "/v1/stream", requests);
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "router_bench: %s\n", failed.what());
    return 1;
  }
  return 0;
}
