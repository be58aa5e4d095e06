#include "actors/leader/leader_shell.hpp"

#include <algorithm>
#include <utility>

namespace troupe::actors {

leader_shell::leader_shell(leader_parts parts, leader_callbacks callbacks,
                           std::shared_ptr<leader_figures> figures)
    : parts_(std::move(parts)),
      callbacks_(std::move(callbacks)),
      figures_(std::move(figures)),
      machine_(parts_.machine) {}

void leader_shell::take(leader_mail mail, time_point now) {
  if (wake_at_ && *wake_at_ <= now) wake_at_.reset();
  if (std::holds_alternative<leader_event::epoch_began>(mail.event)) {
    next_ = std::make_unique<epoch_engine>();
    next_->ranks = std::move(mail.ranks);
    next_->engine = std::make_unique<engine::engine>(*next_->ranks, parts_.engine);
  }
  if (const auto* submitted = std::get_if<leader_event::submitted>(&mail.event)) {
    sinks_[submitted->id] = {std::move(mail.sink), submitted->request.choices};
    figures_->prompt_tokens += submitted->request.prompt_ids.size();
  }
  if (auto* const ended = std::get_if<leader_event::epoch_ended>(&mail.event)) {
    ended->running = running();
  }
  const bool cancels = std::holds_alternative<leader_event::cancelled>(mail.event);
  const std::uint64_t stopped = stopped_;
  apply(std::move(mail.event), now);
  if (cancels && stopped_ > stopped) {
    const std::uint64_t begun = steps_begun();
    figures_->steps_after_cancel += begun - std::min(begun, mail.steps_begun);
  }
  if (next_) {  // the machine did not want it: a stale epoch
    const base::epoch_id epoch = next_->ranks->epoch();
    next_.reset();
    callbacks_.released(epoch);
  }
}

void leader_shell::run_step() {
  wants_step_ = false;
  if (!current_) return;
  const std::uint64_t before = current_->engine->steps();
  auto events = current_->engine->step();
  const time_point now = std::chrono::steady_clock::now();
  if (!events) {
    apply(leader_event::step_failed{events.error(), running()}, now);
    return;
  }
  leader_event::stepped stepped{.tokens = {}, .computed = current_->engine->steps() > before};
  for (engine::engine_event& event : *events) {
    const auto found = current_->keys.find(event.token.sequence);
    if (found == current_->keys.end()) continue;
    const choice_key key = found->second;
    if (event.finished || event.failed) forget(key);
    if (key.request != canary_request && !event.failed) ++figures_->generation_tokens;
    stepped.tokens.push_back({.key = key,
                              .token = std::move(event.token),
                              .finished = event.finished,
                              .failed = std::move(event.failed),
                              .cached_tokens = event.cached_tokens,
                              .prompt_logprobs = std::move(event.prompt_logprobs)});
  }
  apply(std::move(stepped), now);
}

void leader_shell::apply(leader_input event, time_point now) {
  follow_ups_.push_back(std::move(event));
  while (!follow_ups_.empty()) {
    leader_input next = std::move(follow_ups_.front());
    follow_ups_.pop_front();
    for (leader_output& effect : machine_.step(std::move(next), now)) {
      std::visit([this](auto& kind) { run(kind); }, effect);
    }
  }
  publish(now);
}

void leader_shell::run(leader_effect::start& effect) {
  if (next_) current_ = std::move(next_);  // the new epoch's first sequence
  auto id = current_->engine->add(std::move(effect.log));
  if (!id) {
    follow_ups_.emplace_back(leader_event::start_refused{effect.key, std::move(id).error()});
    return;
  }
  current_->ids[effect.key] = *id;
  current_->keys[*id] = effect.key;
}

void leader_shell::run(leader_effect::stop& effect) {
  const auto found = current_->ids.find(effect.key);
  if (found == current_->ids.end()) return;
  current_->engine->remove(found->second);
  ++stopped_;
  forget(effect.key);
}

void leader_shell::forget(choice_key key) {
  const auto found = current_->ids.find(key);
  if (found == current_->ids.end()) return;
  current_->keys.erase(found->second);
  current_->ids.erase(found);
}

std::vector<choice_key> leader_shell::running() const {
  std::vector<choice_key> found;
  if (!current_) return found;
  for (const auto& [id, key] : current_->keys) {
    if (current_->engine->is_running(id)) found.push_back(key);
  }
  return found;
}

std::uint64_t leader_shell::steps_begun() const {
  return steps_before_ + (current_ ? current_->engine->steps_begun() : 0);
}

void leader_shell::run(leader_effect::step&) { wants_step_ = true; }

void leader_shell::run(leader_effect::tokens& effect) {
  const auto found = sinks_.find(effect.id);
  if (found != sinks_.end()) found->second.sink->on_tokens(effect.tokens);
}

void leader_shell::run(leader_effect::end& effect) {
  const auto found = sinks_.find(effect.id);
  if (found == sinks_.end()) return;
  const open_sink ended = std::move(found->second);
  sinks_.erase(found);
  figures_->open_sequences -= ended.sequences;
  ended.sink->on_end(std::move(effect.outcome));
}

void leader_shell::run(leader_effect::proved& effect) { callbacks_.proved(effect.epoch); }

void leader_shell::run(leader_effect::failed& effect) {
  callbacks_.failed(effect.epoch, effect.reason);
}

void leader_shell::run(leader_effect::release& effect) {
  wants_step_ = false;
  if (current_) {
    steps_before_ += current_->engine->steps();
    prefill_before_ += current_->engine->prefill_tokens();
    preemptions_before_ += current_->engine->preemptions();
    prefixes_before_.queried += current_->engine->prefixes().queried;
    prefixes_before_.hit += current_->engine->prefixes().hit;
    current_.reset();
  }
  callbacks_.released(effect.epoch);
}

void leader_shell::run(leader_effect::drained&) { callbacks_.drained(); }

void leader_shell::run(leader_effect::wake_at& effect) {
  if (!wake_at_ || effect.when < *wake_at_) wake_at_ = effect.when;
}

void leader_shell::publish(time_point now) {
  figures_->ready_until_ns =
      machine_.ready(now) ? machine_.ready_until().time_since_epoch().count() : std::int64_t{0};
  figures_->draining = machine_.draining();
  figures_->cancelled = machine_.cancelled();
  figures_->carried = machine_.carried();
  figures_->stale_dropped = machine_.stale_dropped();
  const engine::engine* engine = current_ ? current_->engine.get() : nullptr;
  figures_->steps_begun = steps_begun();
  figures_->steps = steps_before_ + (engine == nullptr ? 0 : engine->steps());
  figures_->prefill_tokens = prefill_before_ + (engine == nullptr ? 0 : engine->prefill_tokens());
  figures_->preemptions = preemptions_before_ + (engine == nullptr ? 0 : engine->preemptions());
  const engine::prefix_counts now_prefixes =
      engine == nullptr ? engine::prefix_counts{} : engine->prefixes();
  figures_->prefix_tokens_queried = prefixes_before_.queried + now_prefixes.queried;
  figures_->prefix_tokens_hit = prefixes_before_.hit + now_prefixes.hit;
  figures_->running = engine == nullptr ? 0 : static_cast<std::int64_t>(engine->running());
  figures_->engine_sequences =
      engine == nullptr ? 0 : static_cast<std::int64_t>(engine->sequences());
  figures_->blocks_free = engine == nullptr ? 0 : engine->free_blocks();
}

}  // namespace troupe::actors
