#include "router/router.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <set>
#include <unordered_map>
#include <utility>

#include "router/router_metrics.hpp"
#include "serving/api_error.hpp"
#include "serving/json_text.hpp"

namespace troupe::router {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds tick_interval{20};
constexpr int drain_retry_after_s = 5;

bool is_proxied(std::string_view path) {
  constexpr std::array<std::string_view, 3> others = {"/", "/tokenize", "/detokenize"};
  return path.starts_with("/v1/") || std::ranges::find(others, path) != others.end();
}

}  // namespace

class http_router::impl final : public request_host {
 public:
  explicit impl(router_options options)
      : options_(std::move(options)),
        pool_(options_.loop, {}),
        prober_(pool_, options_.probes, options_.gang_authorization,
                {.changed = [this](gang& of) { on_changed(of); },
                 .lost = [this](gang& of, const std::string& why) { on_lost(of, why); }}) {}

  void start(net::http_server& server) {
    server_.store(&server);
    (void)server.post([this] { tick(); });
  }

  void set_gangs(std::vector<gang_place> places) {
    net::http_server* const server = server_.load();
    if (server == nullptr) return;
    (void)server->post([this, places = std::move(places)]() mutable {
      for (const auto& gone : gangs_.update(std::move(places))) forget(*gone);
      prober_.tick(gangs_.all(), steady_clock::now());
    });
  }

  void drain() { draining_.store(true); }
  [[nodiscard]] std::size_t open_requests() const noexcept { return open_count_.load(); }
  [[nodiscard]] bool ready() const noexcept { return ready_.load(); }

  void handle(net::http_request request, std::shared_ptr<net::response> response) {
    const std::string path(request.path());
    const bool probe = path == "/health" || path == "/ready" || path == "/metrics";
    const bool open = (probe && (options_.open_metrics || request.loopback)) || path == "/health" ||
                      path == "/version";
    if (!open && !options_.keys.admits(request.header("authorization"))) {
      return serving::send_error(*response,
                                 serving::error_of_status(401, "send an API key of this router"));
    }
    const bool reads = request.method == "GET" || request.method == "HEAD";
    if (reads && path == "/health") return answer(*response, 200, R"({"status":"ok"})");
    if (reads && path == "/ready") return ready(*response);
    if (reads && path == "/metrics") return metrics(*response);
    if (reads && path == "/version") {
      return answer(*response, 200, fmt::format(R"({{"version":"{}"}})", options_.version));
    }
    if (!is_proxied(path)) {
      return serving::send_error(
          *response, serving::error_of_status(404,
                                              "no such path; this router has /v1/..., /tokenize, "
                                              "/detokenize, /health, /ready, /metrics, /version"));
    }
    if (draining_.load()) {
      serving::api_error error = base::error{base::error_code::unavailable,
                                             "this router is shutting down; ask another", "router"};
      error.retry_after_s = drain_retry_after_s;
      error.close = true;
      return serving::send_error(*response, error);
    }
    if (reads && path == "/v1/models" && models(*response)) return;
    forward(std::move(request), std::move(response));
  }

  // --- request_host ---
  std::shared_ptr<gang> choose(const request_traits& request,
                               const std::vector<std::shared_ptr<gang>>& tried) override {
    return gangs_.choose(*options_.policy, request, tried);
  }
  void suspect(gang& of, const std::string& why) override { prober_.suspect(of, why); }
  bool wait_for_gang(const std::shared_ptr<proxied_request>& one) override {
    if (waiting_.size() >= options_.waiting_max) return false;
    waiting_.push_back(one);
    return true;
  }
  void ended(proxied_request& one) override {
    if (open_.erase(&one) > 0) bodies_bytes_ -= one.body_bytes();
    open_count_.store(open_.size());
    std::erase_if(waiting_, [&](const auto& waiting) { return waiting.get() == &one; });
  }
  net::http_pool& pool() override { return pool_; }
  router_counters& counters() override { return counters_; }
  [[nodiscard]] const retry_bounds& bounds() const override { return options_.retries; }

 private:
  static void answer(net::response& to, int status, std::string body) {
    to.send(status, {{"content-type", "application/json"}}, std::move(body));
  }

  void forward(net::http_request request, std::shared_ptr<net::response> response) {
    if (bodies_bytes_ + request.body.size() > options_.bodies_bytes_max) {
      return serving::send_error(
          *response,
          base::error{base::error_code::resource_exhausted,
                      "too many bytes of requests are open: try again later", "router", true});
    }
    request_traits traits =
        read_traits(request.body, request.header("x-session-id"), options_.traits);
    if (gangs_.unknown_model(traits.model)) {
      serving::api_error error = serving::error_of_status(
          404, fmt::format("no gang here serves the model '{}'; /v1/models has them",
                           traits.model.substr(0, 200)));
      error.code = "model_not_found";
      error.param = "model";
      return serving::send_error(*response, error);
    }
    std::vector<net::header_field> headers = std::move(request.headers);
    if (!options_.gang_authorization.empty()) {
      std::erase_if(headers, [](const auto& field) { return field.first == "authorization"; });
      headers.emplace_back("authorization", options_.gang_authorization);
    }
    headers.emplace_back("x-forwarded-for", request.peer);
    const bool has_body = request.method != "GET" && request.method != "HEAD";
    const auto one = std::make_shared<proxied_request>(
        *this,
        client_request{.method = std::move(request.method),
                       .target = std::move(request.target),
                       .headers = std::move(headers),
                       .body = has_body
                                   ? std::make_shared<const std::string>(std::move(request.body))
                                   : nullptr,
                       .traits = std::move(traits),
                       .response = response},
        steady_clock::now());
    open_.emplace(one.get(), one);
    bodies_bytes_ += one->body_bytes();
    open_count_.store(open_.size());
    response->on_gone([weak = std::weak_ptr(one)] {
      if (const auto alive = weak.lock()) alive->leave();
    });
    one->look_for_gang();
  }

  void ready(net::response& to) {
    if (draining_.load()) return not_ready(to, "draining");
    if (!gangs_.any_takes()) return not_ready(to, "no gang is ready");
    answer(to, 200, R"({"ready":true})");
  }
  static void not_ready(net::response& to, std::string_view why) {
    to.send(503, {{"content-type", "application/json"}, {"retry-after", "1"}},
            fmt::format(R"({{"ready":false,"reason":"{}"}})", why));
  }

  // What the ready gangs tell, together; false where none does.
  bool models(net::response& to) {
    std::set<std::string> seen;
    std::string body;
    for (const auto& one : gangs_.all()) {
      if (!one->takes()) continue;
      for (const auto& [id, object] : one->models) {
        if (!seen.insert(id).second) continue;
        body += (body.empty() ? "" : ",") + object;
      }
    }
    if (body.empty()) return false;
    answer(to, 200, R"({"object":"list","data":[)" + body + "]}");
    return true;
  }

  void metrics(net::response& to) {
    net::http_server* const server = server_.load();
    to.send(
        200, {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}},
        metrics_page({.gangs = gangs_.all(),
                      .counters = counters_,
                      .waiting = waiting_.size(),
                      .open = open_.size(),
                      .http = server != nullptr ? server->counters() : net::http_server_counters{},
                      .version = options_.version}));
  }

  void on_changed(gang& of) {
    const std::string& name = of.place.name;
    if (!of.ready) {
      return options_.log->warning(fmt::format("gang {} is not ready: {}", name, of.why_not));
    }
    options_.log->info(fmt::format("gang {} is ready", name));
    // Each takes itself out, or waits again; those that came first, first.
    for (const auto& one : std::exchange(waiting_, {})) one->look_for_gang();
  }

  void on_lost(gang& of, const std::string& why) {
    if (of.open_requests == 0) return;
    options_.log->warning(fmt::format("gang {} answers nothing: its {} requests go elsewhere",
                                      of.place.name, of.open_requests));
    for_each_open([&](proxied_request& one) {
      if (one.at() == &of) one.gang_lost(why);
    });
  }

  // They end while this goes on.
  template <class Call>
  void for_each_open(Call call) {
    std::vector<std::shared_ptr<proxied_request>> all;
    all.reserve(open_.size());
    for (const auto& [key, one] : open_) all.push_back(one);
    for (const auto& one : all) call(*one);
  }

  void tick() {
    const auto now = steady_clock::now();
    prober_.tick(gangs_.all(), now);
    for_each_open([now](proxied_request& one) { one.on_tick(now); });
    for (const auto& gone : gangs_.sweep()) forget(*gone);
    ready_.store(gangs_.any_takes());
    options_.loop->at(now + tick_interval, [this] { tick(); });
  }

  void forget(const gang& gone) {
    pool_.forget(gone.place.peer.authority);
    options_.log->info(fmt::format("gang {} is gone", gone.place.name));
  }

  const router_options options_;
  std::atomic<net::http_server*> server_{nullptr};
  std::atomic<bool> draining_{false};
  std::atomic<bool> ready_{false};
  std::atomic<std::size_t> open_count_{0};
  net::http_pool pool_;
  gang_table gangs_;
  gang_prober prober_;
  router_counters counters_;
  std::unordered_map<proxied_request*, std::shared_ptr<proxied_request>> open_;
  std::deque<std::shared_ptr<proxied_request>> waiting_;
  std::size_t bodies_bytes_ = 0;  // of open_
};

base::result<std::unique_ptr<http_router>> http_router::make(router_options options) {
  if (!options.loop || !options.policy || options.log == nullptr) {
    return base::fail(base::error_code::invalid_argument, "router",
                      "a router needs a loop, a policy and a log");
  }
  return std::unique_ptr<http_router>(new http_router(std::make_unique<impl>(std::move(options))));
}

http_router::http_router(std::unique_ptr<impl> made) : impl_(std::move(made)) {}
http_router::~http_router() = default;
void http_router::start(net::http_server& server) { impl_->start(server); }
void http_router::handle(net::http_request request, std::shared_ptr<net::response> response) {
  impl_->handle(std::move(request), std::move(response));
}
void http_router::set_gangs(std::vector<gang_place> places) { impl_->set_gangs(std::move(places)); }
void http_router::drain() { impl_->drain(); }
bool http_router::ready() const noexcept { return impl_->ready(); }
std::size_t http_router::open_requests() const noexcept { return impl_->open_requests(); }

}  // namespace troupe::router
