#include "lws/local_pod.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <csignal>
#include <utility>

namespace troupe::lws {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

}  // namespace

const probe_spec& probe_of(const container_spec& container, probe_kind kind) {
  const auto& probe = kind == probe_kind::startup     ? container.startup
                      : kind == probe_kind::readiness ? container.readiness
                                                      : container.liveness;
  return probe.value();
}

local_pod::local_pod(pod_identity who, std::shared_ptr<const workload> of, pod_hands& hands,
                     back_off_bounds back_off)
    : who_(std::move(who)),
      of_(std::move(of)),
      hands_(hands),
      back_off_(back_off),
      states_(spec().first.size() + spec().containers.size()) {}

const container_spec& local_pod::container(std::size_t at) const {
  return is_first(at) ? spec().first.at(at) : spec().containers.at(at - spec().first.size());
}

void local_pod::tick(time_point now) {
  for (std::size_t at = 0; at < states_.size(); ++at) {
    container_state& state = states_[at];
    if (stop_at_) {
      const seconds sleep(at_once_ ? 0 : container(at).pre_stop_s);
      if (state.running && !state.kill_at && now >= *stop_at_ + sleep) {
        const auto left = *stop_at_ + seconds(spec().grace_s) - now;
        end(at, now, std::max(milliseconds(0), std::chrono::duration_cast<milliseconds>(left)));
      }
    } else {
      keep(at, now);
      // The next container waits for one of the first.
      if (is_first(at) && !state.done) break;
    }
    if (state.running && state.kill_at && now >= *state.kill_at) {
      hands_.send_signal(*this, at, SIGKILL);
    }
  }
  note_ready();
}

void local_pod::keep(std::size_t at, time_point now) {
  container_state& state = states_[at];
  if (!state.running) {
    if (!state.done && now >= state.not_before) run(at, now);
    return;
  }
  if (state.kill_at) return;
  const container_spec& of = container(at);
  if (!state.started) return look(at, probe_kind::startup, of.startup, now);
  look(at, probe_kind::readiness, of.readiness, now);
  look(at, probe_kind::liveness, of.liveness, now);
}

void local_pod::run(std::size_t at, time_point now) {
  container_state& state = states_[at];
  const container_spec& of = container(at);
  if (state.life > 0) ++state.restarts;
  ++state.life;
  state.running = true;
  state.since = now;
  state.started = !of.startup;
  state.ready = state.started && !of.readiness;
  state.kill_at.reset();
  const auto first = [now](const std::optional<probe_spec>& probe) {
    return probe_state{.next = now + seconds(probe ? probe->initial_delay_s : 0)};
  };
  state.startup = first(of.startup);
  state.readiness = first(of.readiness);
  state.liveness = first(of.liveness);
  hands_.start(*this, at);
}

local_pod::probe_state& local_pod::state_of(container_state& of, probe_kind kind) {
  return kind == probe_kind::startup     ? of.startup
         : kind == probe_kind::readiness ? of.readiness
                                         : of.liveness;
}

void local_pod::look(std::size_t at, probe_kind kind, const std::optional<probe_spec>& how,
                     time_point now) {
  probe_state& state = state_of(states_[at], kind);
  if (!how || state.asked || now < state.next) return;
  state.asked = true;
  hands_.probe(*this, at, kind);
}

void local_pod::probed(std::size_t at, probe_kind kind, int life, bool good, time_point now) {
  container_state& state = states_.at(at);
  if (life != state.life || !state.running) return;  // of a former life
  const container_spec& of = container(at);
  const probe_spec& how = probe_of(of, kind);
  probe_state& probe = state_of(state, kind);
  probe.asked = false;
  probe.next = now + seconds(how.period_s);
  probe.bad = good ? 0 : probe.bad + 1;
  const bool failed = probe.bad >= how.failures;
  switch (kind) {
    case probe_kind::readiness:
      state.ready = good || (state.ready && !failed);
      break;
    case probe_kind::startup:
      state.started = good;
      state.ready = good && !of.readiness;
      break;
    case probe_kind::liveness:
      break;
  }
  if (failed && kind != probe_kind::readiness) {
    hands_.tell(*this,
                fmt::format("{} failed its {} probe {} times: it is ended", of.name,
                            kind == probe_kind::startup ? "startup" : "liveness", probe.bad));
    end(at, now, seconds(spec().grace_s));
  }
  note_ready();
}

void local_pod::end(std::size_t at, time_point now, milliseconds grace) {
  states_[at].kill_at = now + grace;
  states_[at].ready = false;
  hands_.send_signal(*this, at, SIGTERM);
}

void local_pod::exited(std::size_t at, const std::string& how, bool clean, time_point now) {
  container_state& state = states_.at(at);
  state.running = state.started = state.ready = false;
  state.kill_at.reset();
  if (is_first(at) && clean) {
    state.done = true;
  } else if (!stop_at_) {
    if (now - state.since > back_off_.forgotten) state.back_off = milliseconds(0);
    state.not_before = now + state.back_off;
    hands_.tell(*this, fmt::format("{} {}; it starts again in {} s", container(at).name, how,
                                   state.back_off.count() / 1000));
    state.back_off = state.back_off.count() == 0 ? back_off_.first
                                                 : std::min(back_off_.most, state.back_off * 2);
  }
  note_ready();
}

void local_pod::stop(time_point now, bool at_once) {
  at_once_ = at_once_ || at_once;
  if (stop_at_) return;
  stop_at_ = now;
  note_ready();
}

bool local_pod::ready() const noexcept {
  if (stop_at_) return false;
  for (std::size_t at = 0; at < states_.size(); ++at) {
    if (is_first(at) ? !states_[at].done : !states_[at].ready) return false;
  }
  return true;
}

bool local_pod::started() const noexcept {
  for (std::size_t at = 0; at < states_.size(); ++at) {
    if (is_first(at) ? !states_[at].done : !states_[at].started) return false;
  }
  return true;
}

bool local_pod::ended() const noexcept {
  return stop_at_ && std::ranges::none_of(states_, &container_state::running);
}

int local_pod::restarts() const noexcept {
  int all = 0;
  for (const container_state& state : states_) all += state.restarts;
  return all;
}

void local_pod::note_ready() {
  if (std::exchange(told_ready_, ready()) != ready()) {
    hands_.tell(*this, told_ready_ ? "ready" : "not ready");
  }
}

}  // namespace troupe::lws
