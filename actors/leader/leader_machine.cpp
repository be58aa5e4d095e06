#include "actors/leader/leader_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
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
  if (numerics_ != event.numerics) end_where_numerics_differ();
  numerics_ = std::move(event.numerics);
  phase_ = phase::proving;
  start_canary();
}

void leader_machine::on(leader_event::epoch_ended& event) {
  if (event.epoch != epoch_ || phase_ == phase::waiting) {
    ++stale_dropped_;
    return;
  }
  leave_epoch(event.reason, event.running);
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
  request.scope = std::move(event.request.scope);
  request.undone = event.request.choices;
  for (std::uint32_t choice = 0; choice < event.request.choices; ++choice) {
    open_choice& opened = request.choices.emplace_back();
    opened.params = event.request.params;
    opened.params.choice = choice;
    start_choice(event.id, request, choice);
  }
}

// A choice enters the engine with all that it has so far.
void leader_machine::start_choice(base::request_id id, open_request& request,
                                  std::uint32_t choice) {
  open_choice& opened = request.choices.at(choice);
  opened.in_engine = true;
  schemas::sequence_log log;
  log.params = opened.params;
  log.prompt_ids = request.prompt_ids;
  log.emitted_ids = opened.emitted_ids;
  log.scope = request.scope;
  start({id, choice}, std::move(log));
}

void leader_machine::on(leader_event::cancelled& event) {
  if (!open_.contains(event.id)) return;  // it has ended meanwhile
  ++cancelled_;
  end_request(event.id, fail(base::error_code::cancelled, "the client has gone"));
}

void leader_machine::on(leader_event::choice_satisfied& event) {
  open_request* const request = find(event.key.request);
  if (request == nullptr || event.key.choice >= request->choices.size()) return;
  close_choice(*request, event.key, false);
  end_if_complete(event.key.request);
}

void leader_machine::on(leader_event::start_refused& event) {
  if (event.key.request == canary_request) return on_failure(event.error);
  open_request* const request = find(event.key.request);
  if (request == nullptr) return;
  close_choice(*request, event.key, true);
  end_request(event.key.request, tl::unexpected(event.error));
}

void leader_machine::on(leader_event::stepped& event) {
  stepping_ = false;
  if (event.computed) last_step_ = now_;
  // First of all: where it has failed, nothing of this step can be trusted.
  for (const leader_event::stepped_token& token : event.tokens) {
    if (token.key.request == canary_request) accept_canary(token);
  }
  if (phase_ == phase::waiting) return;
  std::map<base::request_id, std::vector<choice_token>> emitted;
  for (leader_event::stepped_token& token : event.tokens) {
    if (token.key.request != canary_request) accept(token, emitted);
  }
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
    resume();
  }
}

void leader_machine::accept(leader_event::stepped_token& token,
                            std::map<base::request_id, std::vector<choice_token>>& emitted) {
  open_request* const request = find(token.key.request);
  if (request == nullptr) return;
  open_choice& choice = request->choices.at(token.key.choice);
  if (choice.done) return;
  request->fruitless_losses = 0;
  if (token.failed) {
    close_choice(*request, token.key, true);
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
  if (token.finished) close_choice(*request, token.key, true);
}

void leader_machine::on(leader_event::step_failed& event) {
  on_failure(event.error, event.running);
}

void leader_machine::on_failure(const base::error& error, const std::vector<choice_key>& running) {
  if (phase_ == phase::waiting) return;
  effects_.emplace_back(leader_effect::failed{epoch_, error.message});
  leave_epoch(error.message, running);
}

void leader_machine::on(leader_event::drain&) { draining_ = true; }

void leader_machine::on(leader_event::woke&) {
  std::vector<base::request_id> late;
  for (const auto& [id, request] : open_) {
    if (due(request) <= now_) late.push_back(id);
  }
  for (const base::request_id id : late) {
    if (open_.at(id).deadline <= now_) {
      end_request(id, fail(base::error_code::deadline_exceeded,
                           "the request was not done in the time it was given"));
    } else {
      end_request(id, fail(base::error_code::unavailable,
                           "the gang is being repaired and takes too long; this answer ends here, "
                           "send the request again",
                           true));
    }
  }
}

// When it ends whatever happens.
time_point leader_machine::due(const open_request& request) const {
  if (!request.lost_at) return request.deadline;
  return std::min(request.deadline, *request.lost_at + options_.repair_patience);
}

leader_machine::open_request* leader_machine::find(base::request_id id) {
  const auto found = open_.find(id);
  return found == open_.end() ? nullptr : &found->second;
}

// `engine_knows`: the sequence has left the engine already, which need not be told.
void leader_machine::close_choice(open_request& request, choice_key key, bool engine_knows) {
  open_choice& choice = request.choices.at(key.choice);
  if (choice.done) return;
  choice.done = true;
  --request.undone;
  if (!std::exchange(choice.in_engine, false)) return;
  --in_engine_;
  if (!engine_knows) effects_.emplace_back(leader_effect::stop{key});
}

void leader_machine::end_request(base::request_id id, base::result<void> outcome) {
  const auto found = open_.find(id);
  TROUPE_CHECK(found != open_.end());
  for (std::uint32_t choice = 0; choice < found->second.choices.size(); ++choice) {
    close_choice(found->second, {id, choice}, false);
  }
  open_.erase(found);
  effects_.emplace_back(leader_effect::end{id, std::move(outcome)});
}

void leader_machine::end_if_complete(base::request_id id) {
  if (open_.at(id).undone == 0) end_request(id, {});
}

// The engine goes as a whole; what was open waits for the next one.
void leader_machine::leave_epoch(const std::string& reason,
                                 const std::vector<choice_key>& running) {
  phase_ = phase::waiting;
  stepping_ = false;
  canary_running_ = false;
  in_engine_ = 0;
  std::set<base::request_id> computed;
  for (const choice_key& key : running) computed.insert(key.request);
  std::vector<base::request_id> all;
  for (const auto& [id, request] : open_) all.push_back(id);
  for (const base::request_id id : all) lose(id, reason, computed.contains(id));
  effects_.emplace_back(leader_effect::release{epoch_});
}

void leader_machine::lose(base::request_id id, const std::string& reason, bool was_computed) {
  open_request& request = open_.at(id);
  bool was_there = false;
  for (open_choice& choice : request.choices) {
    was_there = std::exchange(choice.in_engine, false) || was_there;
  }
  if (!was_there) return;  // it was waiting already
  request.lost_at = now_;
  if (!was_computed || ++request.fruitless_losses <= options_.fruitless_losses_max) return;
  end_request(id, fail(base::error_code::internal,
                       fmt::format("the gang was lost {} times while it computed this request, "
                                   "without a token of it ({}); it is not tried again",
                                   request.fruitless_losses, reason)));
}

// Another instruction path has other roundings: the tokens would be right, but not the same ones.
void leader_machine::end_where_numerics_differ() {
  std::vector<base::request_id> begun;
  for (const auto& [id, request] : open_) {
    const bool has_tokens = std::any_of(request.choices.begin(), request.choices.end(),
                                        [](const auto& one) { return !one.emitted_ids.empty(); });
    if (has_tokens) begun.push_back(id);
  }
  for (const base::request_id id : begun) {
    end_request(id, fail(base::error_code::unavailable,
                         "the gang was repaired with machines that compute otherwise, so this "
                         "answer cannot go on with the same tokens; send the request again",
                         true));
  }
}

void leader_machine::resume() {
  for (auto& [id, request] : open_) {
    request.lost_at.reset();
    ++carried_;
    for (std::uint32_t choice = 0; choice < request.choices.size(); ++choice) {
      if (!request.choices[choice].done) start_choice(id, request, choice);
    }
  }
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
  if (phase_ != phase::waiting && !stepping_) {
    const bool idle_too_long = now_ - last_step_ >= options_.canary_every;
    if (in_engine_ == 0 && idle_too_long) start_canary();
    if (in_engine_ > 0) {
      stepping_ = true;
      effects_.emplace_back(leader_effect::step{});
    }
  }
  const bool idle = phase_ != phase::waiting && in_engine_ == 0;
  time_point earliest = idle ? last_step_ + options_.canary_every : time_point::max();
  for (const auto& [id, request] : open_) earliest = std::min(earliest, due(request));
  if (earliest != time_point::max()) effects_.emplace_back(leader_effect::wake_at{earliest});
}

void leader_machine::check() const {
  std::size_t in_engine = canary_running_ ? 1 : 0;
  for (const auto& [id, request] : open_) {
    TROUPE_CHECK(request.undone > 0);
    for (const open_choice& choice : request.choices) {
      TROUPE_CHECK(!choice.in_engine || !choice.done);
      TROUPE_CHECK(phase_ != phase::serving || choice.done || choice.in_engine);
      in_engine += choice.in_engine ? 1 : 0;
    }
  }
  TROUPE_CHECK(in_engine == in_engine_);
  TROUPE_CHECK(phase_ != phase::waiting || (!stepping_ && in_engine_ == 0));
  TROUPE_CHECK(phase_ == phase::waiting || in_engine_ == 0 || stepping_);
}

}  // namespace troupe::actors
