#include "router/proxied_request.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "serving/api_error.hpp"

namespace troupe::router {
namespace {

using std::chrono::steady_clock;

constexpr int too_many_requests = 429;
constexpr int service_unavailable = 503;

bool is_hop_by_hop(std::string_view name) {
  constexpr std::array<std::string_view, 10> names = {"connection",
                                                      "keep-alive",
                                                      "proxy-authenticate",
                                                      "proxy-connection",
                                                      "te",
                                                      "trailer",
                                                      "transfer-encoding",
                                                      "upgrade",
                                                      "content-length",
                                                      "date"};
  return std::ranges::find(names, name) != names.end();
}

std::vector<net::header_field> fields_for_client(const net::http_reply& head) {
  std::vector<net::header_field> fields;
  for (const auto& field : head.headers) {
    if (!is_hop_by_hop(field.first)) fields.push_back(field);
  }
  return fields;
}

serving::api_error unavailable(const std::string& what) {
  return base::error{base::error_code::unavailable, what, "router", true};
}

// Queues are full there: code resource_exhausted of ours, or 429.
bool is_pressure(int status, const std::string& body) {
  if (status == too_many_requests) return true;
  const auto told = nlohmann::json::parse(body, nullptr, false);
  if (!told.is_object() || !told.contains("error") || !told["error"].is_object()) return false;
  return told["error"].value("code", nlohmann::json()) == "resource_exhausted";
}

std::int64_t events_in(std::string_view bytes) {
  std::int64_t count = 0;
  for (std::size_t at = bytes.find("\n\n"); at != std::string_view::npos;
       at = bytes.find("\n\n", at + 2)) {
    ++count;
  }
  return count;
}

}  // namespace

proxied_request::proxied_request(request_host& host, client_request request, time_point now)
    : host_(host), request_(std::move(request)), deadline_(now + host.bounds().patience) {}

void proxied_request::look_for_gang() {
  if (phase_ != phase::waiting) return;
  if (request_.response->gone()) return end();
  std::shared_ptr<gang> chosen = host_.choose(request_.traits, tried_);
  if (chosen) return ask(chosen);
  if (!tried_.empty()) {
    // All that there are refused: the first of them may take it in a moment.
    ask_again_at_ = steady_clock::now() + host_.bounds().pause;
    return;
  }
  if (!host_.wait_for_gang(shared_from_this())) {
    give_up("no gang is ready, and too many requests wait for one already");
  }
}

void proxied_request::ask(const std::shared_ptr<gang>& chosen) {
  phase_ = phase::asking;
  gang_ = chosen;
  ask_again_at_.reset();
  ++gang_->counted.requests;
  ++gang_->open_requests;
  tokens_left_ = request_.traits.tokens();
  gang_->outstanding_tokens += tokens_left_;
  head_ = {};
  events_ = false;
  opening_ = {};
  held_.clear();
  const auto self = shared_from_this();
  auto begun = host_.pool().call(
      {.peer = chosen->place.peer,
       .method = request_.method,
       .target = request_.target,
       .headers = request_.headers,
       .body = request_.body},
      {.head = [self](const net::http_reply& head) { self->on_head(head); },
       .piece = [self](std::string_view bytes) { self->on_piece(bytes); },
       .end = [self](const std::optional<base::error>& error) { self->on_end(error); }});
  if (!begun) return lost(begun.error().message);
  call_ = *std::move(begun);
}

void proxied_request::on_head(const net::http_reply& head) {
  head_ = head;
  events_ = head.status == 200 && head.header("content-type").starts_with("text/event-stream");
}

void proxied_request::on_piece(std::string_view bytes) {
  if (events_) count_tokens(bytes);
  if (phase_ == phase::passing) return pass_on(std::string(bytes));
  if (events_) {
    switch (opening_.feed(bytes)) {
      case stream_opening::verdict::hold:
        return;
      case stream_opening::verdict::retry: {
        const std::string why = opening_.error();
        host_.suspect(*gang_, why);
        return lost(why);
      }
      case stream_opening::verdict::pass:
        held_ = opening_.take();
        break;
    }
  } else {
    held_ += bytes;
    if (held_.size() <= host_.bounds().held_bytes_max) return;
  }
  phase_ = phase::passing;
  request_.response->begin(head_.status, fields_for_client(head_));
  pass_on(std::exchange(held_, {}));
}

void proxied_request::pass_on(std::string bytes) {
  net::response& to = *request_.response;
  to.write(std::move(bytes));
  if (paused_ || to.unsent_bytes() <= host_.bounds().backlog_bytes_max) return;
  paused_ = true;  // until on_tick() sees that the client has caught up
  call_->pause();
}

void proxied_request::on_end(const std::optional<base::error>& error) {
  call_.reset();
  if (phase_ == phase::passing) {
    if (error) return break_stream(error->message);
    ++gang_->counted.completed;
    request_.response->finish();
    return end();
  }
  if (error) {
    host_.suspect(*gang_, error->message);
    return lost(error->message);
  }
  if (head_.status == service_unavailable || head_.status == too_many_requests) {
    ++gang_->counted.refused;
    return refused(fmt::format("it answers {}", head_.status));
  }
  if (events_ && held_.empty()) held_ = opening_.take();  // a stream without a token
  answer_whole();
}

void proxied_request::answer_whole() {
  ++gang_->counted.completed;
  request_.response->send(head_.status, fields_for_client(head_), std::move(held_));
  end();
}

// Nothing was computed. Pressure is the client's to hear of when every gang is under it; a gang
// that cannot serve now is looked at again.
void proxied_request::refused(const std::string& why) {
  const bool pressure = is_pressure(head_.status, held_);
  if (!pressure) host_.suspect(*gang_, why);
  std::vector<std::shared_ptr<gang>> tried = tried_;
  tried.push_back(gang_);
  const bool others = host_.choose(request_.traits, tried) != nullptr;
  const bool late = steady_clock::now() >= deadline_;
  if (!others && (pressure || late)) return answer_whole();
  try_another();
}

void proxied_request::lost(const std::string& why) {
  ++gang_->counted.lost;
  if (++losses_ > host_.bounds().losses_max) {
    return give_up(
        fmt::format("{} gangs were lost under this request, the last one: {}", losses_, why));
  }
  deadline_ = std::max(deadline_, steady_clock::now() + host_.bounds().patience);
  try_another();
}

void proxied_request::try_another() {
  ++host_.counters().retries;
  tried_.push_back(gang_);
  leave_gang();
  phase_ = phase::waiting;
  look_for_gang();
}

void proxied_request::gang_lost(const std::string& why) {
  if (phase_ == phase::asking) return lost(why);
  if (phase_ == phase::passing) break_stream(why);
}

void proxied_request::give_up(const std::string& why) {
  ++host_.counters().gave_up;
  serving::send_error(*request_.response, unavailable(why));
  end();
}

// The client has a part of the answer: it is told that no more comes.
void proxied_request::break_stream(const std::string& why) {
  ++gang_->counted.lost;
  ++host_.counters().cut_streams;
  if (events_) {
    const auto error = unavailable("the gang was lost in the middle of this answer: " + why);
    request_.response->write("\n\ndata: " + error.body() + "\n\n");
    request_.response->finish();
  } else {
    request_.response->cut();
  }
  end();
}

void proxied_request::on_tick(time_point now) {
  if (phase_ == phase::waiting && now >= deadline_) {
    return give_up(tried_.empty() ? "no gang is ready: try again later"
                                  : "every gang that is ready refused: try again later");
  }
  if (phase_ == phase::waiting && ask_again_at_ && now >= *ask_again_at_) {
    ask_again_at_.reset();
    tried_.clear();
    return look_for_gang();
  }
  if (paused_ && request_.response->unsent_bytes() <= host_.bounds().backlog_bytes_max / 2) {
    paused_ = false;
    if (call_) call_->resume();
  }
}

void proxied_request::leave() {
  if (phase_ == phase::ended) return;
  ++host_.counters().cancelled;
  if (phase_ == phase::passing) request_.response->cut();
  end();
}

// A token each event. The prompt is computed when the first one comes.
void proxied_request::count_tokens(std::string_view bytes) {
  const std::int64_t events = events_in(bytes);
  std::int64_t done = std::min(events, tokens_left_);
  if (events > 0 && tokens_left_ > request_.traits.output_tokens) {
    done = std::min(tokens_left_, tokens_left_ - request_.traits.output_tokens + events);
  }
  tokens_left_ -= done;
  gang_->outstanding_tokens -= done;
}

void proxied_request::leave_gang() {
  if (call_) std::exchange(call_, nullptr)->cancel();
  if (!gang_) return;
  gang_->outstanding_tokens -= std::exchange(tokens_left_, 0);
  --gang_->open_requests;
  gang_.reset();
}

void proxied_request::end() {
  if (std::exchange(phase_, phase::ended) == phase::ended) return;
  const auto self = shared_from_this();  // ended() may let go of the last owner
  leave_gang();
  host_.ended(*this);
}

}  // namespace troupe::router
