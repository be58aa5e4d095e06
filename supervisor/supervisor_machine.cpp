#include "supervisor/supervisor_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "base/check.hpp"
#include "supervisor/json_text.hpp"

namespace troupe::supervisor {
namespace {

using base::child_change;
using base::log_level;

constexpr int exit_failed = 1;
constexpr int exit_lost_gang = 4;
constexpr base::steady_time never = base::steady_time::max();

// A rank that ends with one of these would end so again: usage, refused input, gave its gang up.
bool is_final(const child_change& change) {
  return change.kind == child_change::what::exited && change.number >= 2 && change.number <= 4;
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

supervisor_machine::supervisor_machine(machine_options options)
    : options_(std::move(options)),
      nodes_({.node_rank = options_.node_rank,
              .nnodes = options_.nnodes,
              .world_size = options_.world_size,
              .build_id = options_.build_id}) {
  const int first = nodes_.first_rank_of(options_.node_rank);
  const int end = nodes_.first_rank_of(options_.node_rank + 1);
  for (int rank = first; rank < end; ++rank) {
    slots_.push_back(
        slot{.rank = base::rank_id{rank}, .policy = restart_policy(options_.restarts)});
  }
}

machine_effects supervisor_machine::step(const machine_event& event, base::steady_time now) {
  if (finished()) return {};
  now_ = now;
  std::visit([this](const auto& one) { on(one); }, event);
  set_stand_in();
  check_invariants();
  return std::exchange(effects_, {});
}

base::steady_time supervisor_machine::next_due() const {
  base::steady_time due = tick_due_;
  if (const auto node = nodes_.next_due()) due = std::min(due, *node);
  if (patience_due_) due = std::min(due, *patience_due_);
  for (const slot& one : slots_) {
    if (one.is == state::waiting) due = std::min(due, one.due);
  }
  return due;
}

supervisor_machine::slot* supervisor_machine::find(base::rank_id rank) {
  const auto at =
      std::find_if(slots_.begin(), slots_.end(), [&](const slot& one) { return one.rank == rank; });
  return at == slots_.end() ? nullptr : &*at;
}

void supervisor_machine::log(log_level level, const std::string& line) {
  effects_.push_back(effect::write_log{level, line});
}

// --- time ---------------------------------------------------------------------------------------

void supervisor_machine::on(const event::begin&) {
  tick_due_ = now_ + tick_every;
  ping_due_ = now_ + ping_every;
  if (options_.has_http && leader() != nullptr) {
    effects_.push_back(effect::write_out{
        fmt::format(R"({{"event":"listening","url":{}}})", json_text(options_.url))});
  }
  for (slot& one : slots_) start(one);
}

void supervisor_machine::on(const event::timer&) {
  if (now_ >= tick_due_) {
    const bool late = now_ - tick_due_ > late_by;
    tick_due_ = late ? now_ + tick_every : tick_due_ + tick_every;
    tick(late);
  }
  other_node_lost(nodes_.check(now_, effects_));
  for (slot& one : slots_) {
    if (one.is == state::waiting && now_ >= one.due) start(one);
  }
  if (!patience_due_ || now_ < *patience_due_) return;
  if (stage_ == stage::draining) {
    if (leader() != nullptr) {
      exit_code_ = exit_failed;
      cause_ = fmt::format("open requests did not end within {} s of the signal to drain",
                           seconds(options_.drain_patience));
    }
    leave();
  } else if (stage_ == stage::leaving) {
    log(log_level::warning, fmt::format("ranks that did not leave within {} s are killed",
                                        seconds(options_.leave_patience)));
    end(exit_code_, cause_);
  } else {
    stage_ = stage::finished;
    effects_.push_back(effect::finish{exit_code_, cause_});
  }
}

void supervisor_machine::tick(bool late) {
  if (late) {
    log(log_level::debug, "this process did not run for a while: others' silence starts anew");
    nodes_.restart_windows(now_);
    for (slot& one : slots_) one.vitals.restart();
  }
  nodes_.beat(effects_);
  const bool ping = now_ >= ping_due_;
  if (ping) ping_due_ = now_ + ping_every;
  for (slot& one : slots_) {
    if (one.is != state::running) continue;
    effects_.push_back(effect::read_vitals{one.rank});
    if (!ping) continue;
    if (one.pings - one.answered < pings_open_max) {
      effects_.push_back(effect::tell{one.rank, {schemas::ping{++one.pings}}});
      if (one.pings - one.answered == pings_open_max) {
        log(log_level::warning,
            fmt::format("rank {} has not answered for {} s", one.rank.value,
                        seconds(ping_every * static_cast<int>(pings_open_max))));
      }
    }
  }
}

void supervisor_machine::on(const event::vitals_seen& seen) {
  slot* one = find(seen.rank);
  if (one == nullptr || one->is != state::running) return;
  if (const auto wedged = one->vitals.look(seen.sample, now_)) {
    kill(*one);
    lose(*one, *wedged);
  }
}

// --- processes ----------------------------------------------------------------------------------

void supervisor_machine::start(slot& one) {
  one.is = state::starting;
  one.pings = 0;
  one.answered = 0;
  one.vitals.restart();
  effects_.push_back(effect::spawn{one.rank});
}

void supervisor_machine::kill(slot& one) {
  one.is = state::dying;
  effects_.push_back(effect::kill{one.rank});
}

void supervisor_machine::on(const event::rank_started& seen) {
  slot* one = find(seen.rank);
  if (one == nullptr || one->is != state::starting) return;
  one->is = state::running;
  one->started = now_;
  if (!control_plane_.host.empty()) {
    effects_.push_back(effect::tell{one->rank, {control_plane_}});
  }
}

void supervisor_machine::on(const event::rank_not_started& seen) {
  slot* one = find(seen.rank);
  if (one == nullptr || !has_process(*one)) return;
  if (one->is == state::dying) return exited(*one, {});
  one->is = state::ended;
  one->started = now_;
  if (stage_ == stage::serving) {
    lose(*one, seen.why);
  } else if (one == leader()) {
    leave();  // it was to drain
  } else {
    finish_when_all_ended();
  }
}

void supervisor_machine::on(const event::rank_changed& seen) {
  slot* one = find(seen.rank);
  if (one == nullptr || !has_process(*one)) return;
  if (seen.change.kind == child_change::what::stopped) {
    if (one->is == state::dying) return;
    kill(*one);
    lose(*one, base::to_string(seen.change));
  } else {
    exited(*one, seen.change);
  }
}

void supervisor_machine::exited(slot& one, const child_change& change) {
  const bool lost_already = one.is == state::dying;
  const bool by_itself = change.kind == child_change::what::exited;
  const std::string cause = base::to_string(change);
  one.is = state::ended;
  switch (stage_) {
    case stage::serving:
      if (lost_already) {
        one.is = state::waiting;
        if (now_ >= one.due) start(one);
      } else if (options_.one_shot && &one == leader() && by_itself) {
        end(change.number, change.number == 0 ? "" : fmt::format("rank 0 {}", cause));
      } else if (is_final(change)) {
        end(change.number, fmt::format("rank {} {}: its own line says why", one.rank.value, cause));
      } else {
        lose(one, cause);
      }
      return;
    case stage::draining:
      if (&one != leader()) {
        if (!lost_already) lose(one, cause);
        return;
      }
      if (change.number != 0) {
        exit_code_ = exit_failed;
        cause_ = fmt::format("rank 0 {} while it drained", cause);
      }
      return leave();
    case stage::leaving:
    case stage::ending:
    case stage::finished:
      finish_when_all_ended();
  }
}

void supervisor_machine::on(const event::rank_does_not_read& seen) {
  slot* one = find(seen.rank);
  if (one == nullptr || one->is == state::dying || !has_process(*one)) return;
  kill(*one);
  lose(*one, "it does not read what it is told");
}

// `lost` is dying or ended. Nobody may wait for it any longer, so that comes first.
void supervisor_machine::lose(slot& lost, const std::string& cause) {
  if (segment_) effects_.push_back(effect::abort_segment{});
  segment_.reset();
  const bool again = stage_ == stage::serving && !options_.one_shot;
  const base::steady_time due =
      again ? lost.policy.lost(lost.started, now_).value_or(never) : never;
  const schemas::rank_lost loss{lost.rank, cause, lost.policy.restarts()};
  leave_epoch(loss);
  nodes_.tell_all(loss, effects_);
  if (&lost == leader()) {
    control_plane_ = {};
    for (const slot& one : slots_) {
      if (one.is == state::running) {
        effects_.push_back(effect::tell{one.rank, {control_plane_}});
      }
    }
  }
  lost.last_loss = cause;
  lost.phase = {};
  const std::string line = fmt::format("rank {} is lost: {}", lost.rank.value, cause);
  if (stage_ != stage::serving) {
    log(log_level::warning, line);
  } else if (options_.one_shot) {
    end(exit_lost_gang, line);
  } else if (due == never) {
    end(exit_lost_gang,
        fmt::format("{}; it was started again {} times within {} minutes, which is the bound", line,
                    options_.restarts.restarts, options_.restarts.window.count()));
  } else {
    log(log_level::warning,
        due <= now_ ? fmt::format("{}; it is started again", line)
                    : fmt::format("{}; it is started again in {} s", line, seconds(due - now_)));
    lost.due = due;
    if (lost.is == state::ended) {
      lost.is = state::waiting;
      if (now_ >= due) start(lost);
    }
  }
}

void supervisor_machine::other_node_lost(const node_watch::losses& losses) {
  for (const schemas::rank_lost& loss : losses) {
    leave_epoch(loss);
    if (options_.one_shot) {
      end(exit_lost_gang, fmt::format("rank {} is lost: {}", loss.rank.value, loss.cause));
    }
    if (stage_ == stage::draining && loss.rank.value == 0) leave();
  }
}

// --- the end ------------------------------------------------------------------------------------

void supervisor_machine::on(const event::signal_came& seen) {
  const std::string name = fmt::format("SIG{}", ::sigabbrev_np(seen.number));
  if (options_.one_shot) {
    end(exit_failed, fmt::format("interrupted by {}", name));
  } else if (stage_ == stage::serving) {
    drain(name.c_str());
  } else if (seen.number != SIGHUP) {
    end(exit_failed, fmt::format("ended at once by a second signal, {}", name));
  }
}

void supervisor_machine::drain(const char* signal) {
  log(log_level::info,
      fmt::format("{}: open requests have {} s to end", signal, seconds(options_.drain_patience)));
  stage_ = stage::draining;
  patience_due_ = now_ + options_.drain_patience;
  for (slot& one : slots_) {
    if (one.is == state::waiting) one.is = state::ended;
  }
  const slot* first = leader();
  if (first == nullptr) {
    // Its node's supervisor says when it has ended, by closing the connection at the latest.
    if (!nodes_.leader_is_up()) leave();
  } else if (first->is == state::running || first->is == state::starting) {
    const auto patience = static_cast<std::uint64_t>(options_.drain_patience.count());
    effects_.push_back(effect::tell{first->rank, {schemas::drain{patience}}});
  } else {
    leave();
  }
}

void supervisor_machine::leave() {
  stage_ = stage::leaving;
  patience_due_ = now_ + options_.leave_patience;
  if (segment_) effects_.push_back(effect::abort_segment{});
  segment_.reset();
  const auto patience = static_cast<std::uint64_t>(options_.leave_patience.count());
  for (slot& one : slots_) {
    if (one.is != state::running && one.is != state::starting) continue;
    if (&one == leader()) {
      kill(one);
    } else {
      effects_.push_back(effect::tell{one.rank, {schemas::drain{patience}}});
    }
  }
  finish_when_all_ended();
}

void supervisor_machine::end(int exit_code, const std::string& cause) {
  if (stage_ == stage::ending) return;
  stage_ = stage::ending;
  exit_code_ = exit_code;
  cause_ = cause;
  patience_due_ = now_ + end_patience;
  if (segment_) effects_.push_back(effect::abort_segment{});
  segment_.reset();
  for (slot& one : slots_) {
    if (one.is == state::running || one.is == state::starting) kill(one);
    if (one.is == state::waiting) one.is = state::ended;
  }
  finish_when_all_ended();
}

void supervisor_machine::finish_when_all_ended() {
  if (std::any_of(slots_.begin(), slots_.end(), has_process)) return;
  if (stage_ != stage::leaving && stage_ != stage::ending) return;
  stage_ = stage::finished;
  effects_.push_back(effect::finish{exit_code_, cause_});
}

void supervisor_machine::set_stand_in() {
  const slot* first = leader();
  if (!options_.has_http || first == nullptr) return;
  const bool wanted = !finished() && first->is != state::running && first->is != state::starting;
  if (wanted == stand_in_) return;
  stand_in_ = wanted;
  const bool serving = stage_ == stage::serving;
  effects_.push_back(effect::stand_in{
      wanted,
      serving ? fmt::format("rank 0 is being started again after it was lost: {}", first->last_loss)
              : std::string("the gang is shutting down")});
}

void supervisor_machine::check_invariants() const {
  for (const slot& one : slots_) {
    TROUPE_CHECK(one.is != state::waiting || stage_ == stage::serving);
    TROUPE_CHECK(!segment_ || one.is == state::running);
    TROUPE_CHECK(stage_ != stage::ending || one.is == state::dying || one.is == state::ended);
  }
  TROUPE_CHECK(!segment_ || stage_ == stage::serving || stage_ == stage::draining);
  TROUPE_CHECK(stage_ == stage::serving || patience_due_ || finished());
}

}  // namespace troupe::supervisor
