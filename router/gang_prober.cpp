#include "router/gang_prober.hpp"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace troupe::router {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr std::size_t models_max = 256;
constexpr std::size_t reason_bytes_max = 200;

std::vector<std::pair<std::string, std::string>> models_of(const std::string& body) {
  std::vector<std::pair<std::string, std::string>> models;
  const json told = json::parse(body, nullptr, false);
  const json list = told.is_object() ? told.value("data", json()) : json();
  if (!list.is_array()) return models;
  for (const json& one : list) {
    if (!one.is_object() || models.size() == models_max) continue;
    const json id = one.value("id", json());
    if (!id.is_string()) continue;
    models.emplace_back(id.get<std::string>(),
                        one.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  return models;
}

// "reason" of our own answer, else its beginning.
std::string reason_of(int status, const std::string& body) {
  const json told = json::parse(body, nullptr, false);
  const json reason = told.is_object() ? told.value("reason", json()) : json();
  return fmt::format(
      "{}: {}", status,
      (reason.is_string() ? reason.get<std::string>() : body).substr(0, reason_bytes_max));
}

}  // namespace

gang_prober::gang_prober(net::http_pool& pool, probe_bounds bounds, std::string authorization,
                         probe_calls calls)
    : pool_(pool),
      bounds_(std::move(bounds)),
      authorization_(std::move(authorization)),
      calls_(std::move(calls)) {}

gang_prober::~gang_prober() { *alive_ = false; }

void gang_prober::tick(const std::vector<std::shared_ptr<gang>>& gangs, time_point now) {
  for (const std::shared_ptr<gang>& one : gangs) {
    if (one->asked || now < one->ask_at) continue;
    one->asked = true;
    ask(one, bounds_.path, [this](const auto& of, const reply& told) { on_ready_reply(of, told); });
  }
}

void gang_prober::ask(const std::shared_ptr<gang>& one, const std::string& path,
                      const std::function<void(const std::shared_ptr<gang>&, const reply&)>& then) {
  std::vector<net::header_field> headers;
  if (!authorization_.empty()) headers.emplace_back("authorization", authorization_);
  const auto told = std::make_shared<reply>();
  const auto begun =
      pool_.call({.peer = one->place.peer,
                  .target = path,
                  .headers = std::move(headers),
                  .patience = bounds_.patience},
                 {.head = [told](const net::http_reply& head) { told->status = head.status; },
                  .piece =
                      [told, most = bounds_.answer_bytes_max](std::string_view bytes) {
                        told->body += bytes.substr(0, most - told->body.size());
                      },
                  .end =
                      [told, one, then, alive = alive_](const std::optional<base::error>& error) {
                        if (!*alive) return;
                        if (error) told->error = error->message;
                        then(one, *told);
                      }});
  if (begun) return;
  told->error = begun.error().message;
  then(one, *told);
}

void gang_prober::on_ready_reply(const std::shared_ptr<gang>& one, const reply& told) {
  const time_point now = steady_clock::now();
  one->asked = false;
  if (told.error.empty()) {
    one->silent_since.reset();
  } else if (!one->silent_since) {
    one->silent_since = now;
  }
  const bool ready = told.error.empty() && told.status == 200;
  one->ask_at = now + (ready ? bounds_.interval : bounds_.suspect_interval);
  if (ready && !one->ready) {
    // Its models first: nothing goes to a gang that has not the right one.
    one->asked = true;
    ask(one, "/v1/models", [this](const auto& of, const reply& list) {
      of->asked = false;
      of->models = list.status == 200 ? models_of(list.body) : decltype(of->models)();
      set_ready(*of, true, {});
    });
    return;
  }
  if (!ready)
    set_ready(*one, false, told.error.empty() ? reason_of(told.status, told.body) : told.error);
  if (one->silent_since && now - *one->silent_since >= bounds_.lost_after) {
    calls_.lost(*one, told.error);
  }
}

void gang_prober::set_ready(gang& of, bool ready, std::string why_not) {
  of.why_not = std::move(why_not);
  if (std::exchange(of.ready, ready) != ready) calls_.changed(of);
}

void gang_prober::suspect(gang& of, const std::string& why) {
  of.ask_at = steady_clock::now() + bounds_.suspect_interval;
  set_ready(of, false, why);
}

}  // namespace troupe::router
