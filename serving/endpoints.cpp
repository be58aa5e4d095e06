// Which paths there are, who may call them, and all endpoints that need no tokens from the gang.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "serving/gang_report.hpp"
#include "serving/json_text.hpp"
#include "serving/openai_server_impl.hpp"
#include "serving/page.hpp"

namespace troupe::serving {
namespace {

constexpr int drain_retry_after_s = 5;

std::string_view media_type(std::string_view content_type) {
  content_type = content_type.substr(0, content_type.find(';'));
  while (content_type.ends_with(' ')) content_type.remove_suffix(1);
  return content_type;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

// %2F -> "/": clients encode the slash of a model's name. A malformed code stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](std::size_t at) {
      return at < text.size() && std::isxdigit(static_cast<unsigned char>(text[at])) != 0;
    };
    if (text[i] == '%' && is_digit(i + 1) && is_digit(i + 2)) {
      out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string model_object(const served_model& model, const std::string& name) {
  std::string out = R"({"id":)";
  append_json_string(out, name);
  out += fmt::format(R"(,"object":"model","created":{},"owned_by":"troupe","root":)",
                     model.created.count());
  append_json_string(out, model.root.empty() ? name : model.root);
  return out + fmt::format(R"(,"parent":null,"max_model_len":{}}})", model.max_model_len);
}

}  // namespace

// --- routes -------------------------------------------------------------------------------------

struct openai_server::impl::route {
  enum class access : std::uint8_t { open, probe, key };
  std::string_view path;
  std::string_view methods;  // of the allow field
  access who;
  bool needs_gang;  // refused while draining
  void (impl::*handle)(http_exchange&);
};

const openai_server::impl::route* openai_server::impl::find_route(std::string_view path) {
  using enum route::access;
  static constexpr std::string_view get = "GET, HEAD";
  static constexpr std::string_view post = "POST";
  static constexpr std::array<route, 13> routes = {{
      {"/v1/chat/completions", post, key, true, &impl::chat},
      {"/v1/completions", post, key, true, &impl::completions},
      {"/v1/models", get, key, false, &impl::models},
      {"/v1/models/{id}", get, key, false, &impl::model},
      {"/tokenize", post, key, true, &impl::tokenize},
      {"/detokenize", post, key, true, &impl::detokenize},
      {"/health", get, probe, false, &impl::health},
      {"/ready", get, probe, false, &impl::ready},
      {"/metrics", get, probe, false, &impl::metrics},
      {"/version", get, key, false, &impl::version},
      {"/troupe/gang", get, key, false, &impl::gang},
      {"/", get, open, false, &impl::page},
      {"/index.html", get, open, false, &impl::page},
  }};
  constexpr std::string_view one_model = "/v1/models/";
  for (const route& known : routes) {
    if (known.path == path) return &known;
    if (known.handle == &impl::model && path.starts_with(one_model) &&
        path.size() > one_model.size()) {
      return &known;
    }
  }
  return nullptr;
}

bool openai_server::impl::admits(const route& to, const net::http_request& request) const {
  if (options_.keys.empty() || to.who == route::access::open) return true;
  if (to.who == route::access::probe && (request.loopback || options_.open_metrics)) return true;
  return options_.keys.admits(request.header("authorization"));
}

api_result<void> openai_server::impl::check(const route& to,
                                            const net::http_request& request) const {
  if (!admits(to, request)) {
    return tl::unexpected(
        error_of_status(401, request.header("authorization").empty()
                                 ? "no API key was sent; send `Authorization: Bearer KEY`"
                                 : "this API key is not known here"));
  }
  const bool known_method = to.methods == "POST"
                                ? request.method == "POST"
                                : request.method == "GET" || request.method == "HEAD";
  if (!known_method) {
    return tl::unexpected(error_of_status(
        405, fmt::format("{} takes {}, not {}", to.path, to.methods, request.method)));
  }
  // Also what keeps a foreign web page from posting here through its reader's browser: this type
  // is not sent across origins without asking first.
  if (request.method == "POST" &&
      !equal_ignoring_case(media_type(request.header("content-type")), "application/json")) {
    return tl::unexpected(error_of_status(415, "send the body as content-type: application/json"));
  }
  if (to.needs_gang && draining_.load()) {
    api_error error = base::error{base::error_code::unavailable,
                                  "this server is shutting down; send it to another", "serving"};
    error.retry_after_s = drain_retry_after_s;
    error.close = true;
    return tl::unexpected(std::move(error));
  }
  return {};
}

void openai_server::impl::handle(http_exchange exchange) {
  const route* const to = find_route(exchange.request.path());
  exchange.route = to != nullptr ? to->path : "other";
  if (to == nullptr) {
    // Paths are no secret: without a key they are told apart too.
    return send_error(
        exchange,
        error_of_status(404,
                        "no such path; this server has /v1/chat/completions, /v1/completions, "
                        "/v1/models, /tokenize, /detokenize, /health, /ready, /metrics, "
                        "/version"));
  }
  if (auto checked = check(*to, exchange.request); !checked) {
    if (checked.error().status == 405) {
      const api_error& error = checked.error();
      auto headers = error.headers();
      headers.emplace_back("allow", to->methods);
      ++counted_.answers[{exchange.route, error.status}];
      return exchange.response->send(error.status, std::move(headers), error.body());
    }
    return send_error(exchange, checked.error());
  }
  (this->*to->handle)(exchange);
}

void openai_server::impl::send(const http_exchange& to, int status, std::string body,
                               std::vector<net::header_field> more) {
  ++counted_.answers[{to.route, status}];
  const bool typed = std::any_of(more.begin(), more.end(),
                                 [](const auto& field) { return field.first == "content-type"; });
  if (!typed) more.emplace_back("content-type", "application/json");
  to.response->send(status, std::move(more), std::move(body));
}

void openai_server::impl::send_error(const http_exchange& to, const api_error& error) {
  ++counted_.answers[{to.route, error.status}];
  serving::send_error(*to.response, error);
}

// --- endpoints ----------------------------------------------------------------------------------

void openai_server::impl::page(http_exchange& exchange) {
  send(exchange, 200, std::string(page_html()),
       {{"content-type", "text/html; charset=utf-8"},
        {"content-security-policy", page_policy_},
        {"x-content-type-options", "nosniff"},
        {"referrer-policy", "no-referrer"},
        {"cache-control", "no-cache"}});
}

void openai_server::impl::health(http_exchange& exchange) {
  // That this runs at all shows that the loop turns.
  if (options_.supervisor_lives && !options_.supervisor_lives()) {
    return send(exchange, 503, R"({"status":"the supervisor does not answer"})");
  }
  send(exchange, 200, R"({"status":"ok"})");
}

void openai_server::impl::ready(http_exchange& exchange) {
  const actors::gang_status gang = options_.gang.status();
  if (gang.ready && !gang.draining && !draining_.load()) {
    return send(exchange, 200, fmt::format(R"({{"ready":true,"epoch":{}}})", gang.epoch.number));
  }
  std::string body = R"({"ready":false,"reason":)";
  if (draining_.load() || gang.draining) {
    body += R"("draining")";
  } else {
    append_json_string(body, gang.not_ready.empty() ? "no decode step yet" : gang.not_ready);
  }
  send(exchange, 503, body + '}', {{"retry-after", "1"}});
}

void openai_server::impl::metrics(http_exchange& exchange) {
  const metrics_context context{
      .model = options_.model,
      .gang = options_.gang.status(),
      .http = http_counters_ ? http_counters_() : net::http_server_counters{},
      .open_requests = open_requests(),
      .text_queue = short_texts_.waiting() + long_texts_.waiting() + new_grammars_.waiting(),
      .now = options_.seams.wall_clock(),
      .version = options_.version};
  send(exchange, 200, metrics_page(counted_, context),
       {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}});
}

void openai_server::impl::version(http_exchange& exchange) {
  std::string body = R"({"version":)";
  append_json_string(body, options_.version);
  body += R"(,"build_id":)";
  append_json_string_or_null(body, options_.build_id);
  send(exchange, 200, body + '}');
}

void openai_server::impl::gang(http_exchange& exchange) {
  send(exchange, 200, gang_report(options_.gang.status(), options_.model, draining_.load()),
       {{"cache-control", "no-store"}});
}

void openai_server::impl::models(http_exchange& exchange) {
  std::string body = R"({"object":"list","data":[)";
  for (const std::string& name : options_.model.names) {
    if (&name != &options_.model.names.front()) body += ',';
    body += model_object(options_.model, name);
  }
  send(exchange, 200, body + "]}");
}

void openai_server::impl::model(http_exchange& exchange) {
  const std::string name =
      percent_decoded(exchange.request.path().substr(std::string_view("/v1/models/").size()));
  const auto& names = options_.model.names;
  if (std::find(names.begin(), names.end(), name) != names.end()) {
    return send(exchange, 200, model_object(options_.model, name));
  }
  send_error(exchange, no_such_model(name, options_.model));
}

void openai_server::impl::answer_text(http_exchange& exchange,
                                      api_result<std::string> (text_front::*make)(std::string_view)
                                          const) {
  const std::weak_ptr<impl> self = weak_from_this();
  const std::size_t bytes = exchange.request.body.size();
  const auto body = std::make_shared<const std::string>(std::move(exchange.request.body));
  enqueue(texts_for(bytes), exchange, bytes,
          [self, exchange, body, make, front = front_, thread = thread_] {
            if (exchange.response->gone()) return;
            thread->post([self, exchange, made = ((*front).*make)(*body)] {
              const auto alive = self.lock();
              if (!alive) return;
              if (made) {
                alive->send(exchange, 200, *made);
              } else {
                alive->send_error(exchange, made.error());
              }
            });
          });
}

void openai_server::impl::tokenize(http_exchange& exchange) {
  answer_text(exchange, &text_front::tokenize);
}

void openai_server::impl::detokenize(http_exchange& exchange) {
  answer_text(exchange, &text_front::detokenize);
}

}  // namespace troupe::serving
