#include "actors/leader/leader_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace troupe::actors {
namespace {

tl::unexpected<base::error> fail(base::error_code code, std::string what, bool retryable = false) {
  return base::fail(code, "actors", std::move(what), retryable);
}

}  // namespace

leader_machine::leader_machine(leader_options options) : options_(options) {}

std::vector<leader_output> leader_machine::step(leader_input event, time_point now) {
  now_ = std::max(now_, now);
  std::visit([this](auto& kind) { on(kind); }, event);
  go_on();
  check();
  return std::exchange(effects_, {});
}

bool leader_machine::ready(time_point now) const noexcept {
  return phase_ == phase::serving && !draining_ && now - last_step_ <= options_.ready_window;
}

void leader_machine::on(leader_event::epoch_began& event) {
  if (event.epoch <= epoch_ && event.epoch.incarnation == epoch_.incarnation) {
    ++stale_dropped_;
    return;
  }
  if (phase_ != phase::waiting) leave_epoch("a new epoch has begun");
  epoch_ = event.epoch;
  phase_ = phase::proving;
  start_canary();
}

void leader_machine::on(leader_event::epoch_ended& event) {
  if (event.epoch != epoch_ || phase_ == phase::waiting) {
    ++stale_dropped_;
    return;
  }
  leave_epoch(event.reason);
}

void leader_machine::on(leader_event::submitted& event) {
  if (phase_ != phase::serving || draining_) {
    effects_.emplace_back(leader_effect::end{
        event.id, fail(base::error_code::unavailable,
                       draining_ ? "this server is shutting down; send the request elsewhere"
                                 : "the gang is not ready yet; send the request again in a moment",
                       true)});
    return;
  }
  TROUPE_CHECK(event.id != canary_request && !open_.contains(event.id));
  TROUPE_CHECK(event.request.choices >= 1);
  open_request& request = open_[event.id];
  request.prompt_ids = std::move(event.request.prompt_ids);
  request.deadline = now_ + std::min(event.request.patience.value_or(options_.patience_max),
                                     options_.patience_max);
  request.undone = event.request.choices;
  for (std::uint32_t choice = 0; choice < event.request.choices; ++choice) {
    open_choice& opened = request.choices.emplace_back();
    opened.params = event.request.params;
    opened.params.choice = choice;
    schemas::sequence_log log;
    log.params = opened.params;
    log.prompt_ids = request.prompt_ids;
    log.scope = event.request.scope;
    start({event.id, choice}, std::move(log));
  }
}

void leader_machine::on(leader_event::cancelled& event) {
  if (!open_.contains(event.id)) return;  // it has ended meanwhile
  ++cancelled_;
  end_request(event.id, fail(base::error_code::cancelled, "the client has gone"));
}

void leader_machine::on(leader_event::choice_satisfied& event) {
  open_request* const request = find(event.key.request);
  if (request == nullptr || event.key.choice >= request->choices.size()) return;
  close_choice(*request, event.key, true);
  end_if_complete(event.key.request);
}

void leader_machine::on(leader_event::start_refused& event) {
  if (event.key.request == canary_request) return on_failure(event.error);
  open_request* const request = find(event.key.request);
  if (request == nullptr) return;
  close_choice(*request, event.key, false);
  end_request(event.key.request, tl::unexpected(event.error));
}

void leader_machine::on(leader_event::stepped& event) {
  stepping_ = false;
  if (event.computed) last_step_ = now_;
  std::map<base::request_id, std::vector<choice_token>> emitted;
  for (leader_event::stepped_token& token : event.tokens) {
    if (token.key.request == canary_request) {
      accept_canary(token);
    } else {
      accept(token, emitted);
    }
  }
  if (phase_ == phase::waiting) return;  // the canary failed: every request has ended
  for (auto& [id, tokens] : emitted) {
    effects_.emplace_back(leader_effect::tokens{id, std::move(tokens)});
    end_if_complete(id);
  }
}

void leader_machine::accept_canary(const leader_event::stepped_token& token) {
  if (token.failed) return on_failure(*token.failed);
  canary_running_ = false;  // one token is all it asks for
  --in_engine_;
  if (phase_ == phase::proving) {
    phase_ = phase::serving;
    effects_.emplace_back(leader_effect::proved{epoch_});
  }
}

void leader_machine::accept(leader_event::stepped_token& token,
                            std::map<base::request_id, std::vector<choice_token>>& emitted) {
  open_request* const request = find(token.key.request);
  if (request == nullptr) return;
  open_choice& choice = request->choices.at(token.key.choice);
  if (choice.done) return;
  if (token.failed) {
    close_choice(*request, token.key, false);
    emitted.erase(token.key.request);
    end_request(token.key.request, tl::unexpected(*std::move(token.failed)));
    return;
  }
  choice.emitted_ids.push_back(token.token.token_id);
  emitted[token.key.request].push_back({.choice = token.key.choice,
                                        .token = std::move(token.token),
                                        .finished = token.finished,
                                        .cached_tokens = token.cached_tokens,
                                        .prompt_logprobs = std::move(token.prompt_logprobs)});
  if (token.finished) close_choice(*request, token.key, false);
}

void leader_machine::on(leader_event::step_failed& event) { on_failure(event.error); }

void leader_machine::on_failure(const base::error& error) {
  if (phase_ == phase::waiting) return;
  effects_.emplace_back(leader_effect::failed{epoch_, error.message});
  leave_epoch(error.message);
}

void leader_machine::on(leader_event::drain&) { draining_ = true; }

void leader_machine::on(leader_event::woke&) {
  std::vector<base::request_id> late;
  for (const auto& [id, request] : open_) {
    if (request.deadline <= now_) late.push_back(id);
  }
  for (const base::request_id id : late) {
    end_request(id, fail(base::error_code::deadline_exceeded,
                         "the request was not done in the time it was given"));
  }
}

leader_machine::open_request* leader_machine::find(base::request_id id) {
  const auto found = open_.find(id);
  return found == open_.end() ? nullptr : &found->second;
}

// `in_engine`: the engine still holds the sequence and has to be told.
void leader_machine::close_choice(open_request& request, choice_key key, bool in_engine) {
  open_choice& choice = request.choices.at(key.choice);
  if (choice.done) return;
  choice.done = true;
  --request.undone;
  --in_engine_;
  if (in_engine) effects_.emplace_back(leader_effect::stop{key});
}

void leader_machine::end_request(base::request_id id, base::result<void> outcome) {
  const auto found = open_.find(id);
  TROUPE_CHECK(found != open_.end());
  const bool in_engine = phase_ != phase::waiting;  // else the engine goes as a whole
  for (std::uint32_t choice = 0; choice < found->second.choices.size(); ++choice) {
    close_choice(found->second, {id, choice}, in_engine);
  }
  open_.erase(found);
  effects_.emplace_back(leader_effect::end{id, std::move(outcome)});
}

void leader_machine::end_if_complete(base::request_id id) {
  if (open_.at(id).undone == 0) end_request(id, {});
}

void leader_machine::leave_epoch(const std::string& reason) {
  phase_ = phase::waiting;
  stepping_ = false;
  canary_running_ = false;
  while (!open_.empty()) {
    end_request(open_.begin()->first,
                fail(base::error_code::unavailable,
                     fmt::format("the gang is being repaired ({}); this answer ends here, send the "
                                 "request again",
                                 reason),
                     true));
  }
  in_engine_ = 0;
  effects_.emplace_back(leader_effect::release{epoch_});
}

void leader_machine::start_canary() {
  canary_running_ = true;
  schemas::sequence_log log;
  log.params.temperature = 0.0F;
  log.params.max_tokens = 1;
  log.params.ignore_eos = true;
  log.prompt_ids.push_back(options_.canary_token_id);
  log.scope.none = true;  // nobody's traffic: it is not in the cache's counts
  start({canary_request, 0}, std::move(log));
}

void leader_machine::start(choice_key key, schemas::sequence_log log) {
  ++in_engine_;
  effects_.emplace_back(leader_effect::start{key, std::move(log)});
}

// What follows from the state, whatever the event was.
void leader_machine::go_on() {
  if (draining_ && open_.empty() && !drained_said_) {
    drained_said_ = true;
    effects_.emplace_back(leader_effect::drained{});
  }
  if (phase_ == phase::waiting) return;
  if (!stepping_) {
    const bool idle_too_long = now_ - last_step_ >= options_.canary_every;
    if (in_engine_ == 0 && idle_too_long) start_canary();
    if (in_engine_ > 0) {
      stepping_ = true;
      effects_.emplace_back(leader_effect::step{});
    }
  }
  time_point earliest = in_engine_ == 0 ? last_step_ + options_.canary_every : time_point::max();
  for (const auto& [id, request] : open_) earliest = std::min(earliest, request.deadline);
  if (earliest != time_point::max()) effects_.emplace_back(leader_effect::wake_at{earliest});
}

void leader_machine::check() const {
  std::size_t undone = canary_running_ ? 1 : 0;
  for (const auto& [id, request] : open_) {
    TROUPE_CHECK(request.undone > 0);
    undone += request.undone;
  }
  TROUPE_CHECK(undone == in_engine_);
  TROUPE_CHECK(phase_ != phase::waiting || (open_.empty() && !stepping_ && in_engine_ == 0));
  TROUPE_CHECK(phase_ == phase::waiting || in_engine_ == 0 || stepping_);
}

}  // namespace troupe::actors
