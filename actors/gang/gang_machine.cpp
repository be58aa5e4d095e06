#include "actors/gang/gang_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace troupe::actors {

using namespace gang;  // NOLINT(google-build-using-namespace): the machine's own vocabulary

gang_machine::gang_machine(gang_options options)
    : options_(std::move(options)),
      chance_(options_.jitter_seed),
      members_(static_cast<std::size_t>(options_.rules.world_size)),
      paths_(options_.rules.leader.instruction_paths) {
  TROUPE_CHECK(options_.incarnation != 0 && !members_.empty() && !paths_.empty());
  epoch_.incarnation = options_.incarnation;
}

std::vector<effect> gang_machine::step(const event& event, time_point now) {
  if (phase_ == gang_phase::over) return {};
  TROUPE_CHECK(now >= now_);
  now_ = now;
  std::visit([this](const auto& happened) { on(happened); }, event);
  run_deadlines();
  advance();
  if (phase_ != gang_phase::over) {
    show();
    sleep();
  }
  check_invariants();
  return std::exchange(effects_, {});
}

void gang_machine::on(const started&) {
  not_serving_since_ = now_;
  resend_due_ = now_ + gang_times::resend;
}

// --- epochs -------------------------------------------------------------------------------------

bool gang_machine::forming_or_serving() const noexcept {
  return phase_ != gang_phase::gathering && phase_ != gang_phase::over;
}

bool gang_machine::all(member_state state) const {
  return std::all_of(members_.begin(), members_.end(),
                     [state](const member& one) { return one.state == state; });
}

void gang_machine::advance() {
  if (phase_ == gang_phase::gathering && all(member_state::waiting) && !again_due_) {
    begin_epoch();
  } else if (phase_ == gang_phase::preparing && all(member_state::prepared)) {
    connect_all();
  } else if (phase_ == gang_phase::connecting && all(member_state::connected)) {
    enter(gang_phase::proving, options_.canary_patience);
    effects_.emplace_back(serve{epoch_});
  }
}

void gang_machine::begin_epoch() {
  ++epoch_.number;
  if (options_.wants_segment) {
    enter(gang_phase::segment, gang_times::formation);
    effects_.emplace_back(
        want_segment{.epoch = epoch_, .ranks = static_cast<std::int32_t>(members_.size())});
  } else {
    prepare_all();
  }
}

void gang_machine::on(const segment_ready& event) {
  if (phase_ == gang_phase::segment && event.epoch == epoch_) {
    prepare_all();
  } else {
    ++stale_dropped_;
  }
}

void gang_machine::enter(gang_phase phase, milliseconds patience) {
  phase_ = phase;
  phase_due_ = now_ + patience;
  resend_due_ = now_ + gang_times::resend;
}

void gang_machine::prepare_all() {
  enter(gang_phase::preparing, gang_times::formation);
  for (member& one : members_) {
    one.state = member_state::preparing;
    ask(one);
  }
}

void gang_machine::connect_all() {
  enter(gang_phase::connecting, gang_times::formation);
  for (member& one : members_) {
    one.state = member_state::connecting;
    ask(one);
  }
}

void gang_machine::ask(member& who) {
  if (who.state == member_state::loading) {
    welcome(who);
  } else if (who.state == member_state::preparing) {
    say(who.at, schemas::prepare{epoch_});
  } else if (who.state == member_state::connecting) {
    schemas::connect table{.epoch = epoch_, .addresses = {}};
    for (const member& one : members_) table.addresses.push_back(one.address);
    say(who.at, std::move(table));
  } else if (who.state == member_state::leaving) {
    // No epoch begins while a rank is leaving: it is the last one.
    say(who.at, schemas::epoch_ended{.epoch = epoch_, .reason = why_ended_});
  }
}

void gang_machine::on(const canary_done& event) {
  if (phase_ != gang_phase::proving || event.epoch != epoch_) {
    ++stale_dropped_;
    return;
  }
  phase_ = gang_phase::serving;
  phase_due_.reset();
  resend_due_.reset();
  not_serving_since_.reset();
  again_.reset();
}

void gang_machine::on(const epoch_failed& event) {
  if (!stale(event.epoch)) end_epoch(event.reason);
}

void gang_machine::end_epoch(const std::string& why) {
  const bool served = phase_ == gang_phase::serving;
  if (served || phase_ == gang_phase::proving) {
    effects_.emplace_back(stop_serving{.epoch = epoch_, .reason = why});
  }
  effects_.emplace_back(log{fmt::format("gang: epoch {} ends: {}", epoch_.number, why)});
  why_ended_ = why;
  phase_ = gang_phase::gathering;
  phase_due_.reset();
  resend_due_ = now_ + gang_times::resend;
  if (served) {
    if (!draining_) ++repairs_;
    not_serving_since_ = now_;
  } else {
    again_due_ = now_ + again_.next(chance_);
  }
  for (member& one : members_) {
    if (!is_in_epoch(one.state)) continue;
    one.state = member_state::leaving;
    ask(one);
  }
}

// --- the end ------------------------------------------------------------------------------------

void gang_machine::on(const drain& event) {
  draining_ = true;
  drain_due_ = now_ + milliseconds(event.patience_ms);
  if (phase_ != gang_phase::serving) finish(exit_fine, "drained");
}

void gang_machine::on(const drained&) {
  if (draining_) finish(exit_fine, "drained");
}

void gang_machine::finish(int exit_code, std::string reason) {
  if (forming_or_serving()) end_epoch(reason);
  effects_.emplace_back(give_up{.exit_code = exit_code, .reason = std::move(reason)});
  phase_ = gang_phase::over;
}

// --- time ---------------------------------------------------------------------------------------

void gang_machine::on(const timer&) { wake_.reset(); }

void gang_machine::run_deadlines() {
  if (again_due_ && now_ >= *again_due_) again_due_.reset();
  if (take_due(phase_due_, now_)) end_epoch("it took too long: " + missing());
  if (take_due(resend_due_, now_)) {
    resend_due_ = now_ + gang_times::resend;
    for (member& one : members_) ask(one);
  }
  if (phase_ == gang_phase::over) return;
  if (draining_ && (phase_ == gang_phase::gathering || take_due(drain_due_, now_))) {
    finish(exit_fine, "drained");
  } else if (not_serving_since_ && now_ >= *not_serving_since_ + options_.patience) {
    finish(exit_lost_gang, fmt::format("the gang did not form in {} s: {}",
                                       options_.patience.count() / 1000, missing()));
  }
}

void gang_machine::sleep() {
  deadline next;
  for (const deadline& each : {phase_due_, again_due_, drain_due_, resend_due_, say_due_}) {
    next = sooner(next, each);
  }
  if (not_serving_since_) next = sooner(next, *not_serving_since_ + options_.patience);
  if (next && next != wake_) effects_.emplace_back(wake_at{*next});
  wake_ = next;
}

void gang_machine::say(connection_id to, decltype(schemas::control_message::body) body) {
  effects_.emplace_back(send{.connection = to,
                             .message = {.sender = base::rank_id{0},
                                         .sequence = ++connections_[to].sent,
                                         .body = std::move(body)}});
}

void gang_machine::check_invariants() const {
  std::size_t here = 0;
  for (const member& one : members_) {
    const member_state state = one.state;
    switch (phase_) {
      case gang_phase::gathering:
        TROUPE_CHECK(!is_in_epoch(state));
        break;
      case gang_phase::segment:
        TROUPE_CHECK(state == member_state::waiting);
        break;
      case gang_phase::preparing:
        TROUPE_CHECK(state == member_state::preparing || state == member_state::prepared);
        break;
      case gang_phase::connecting:
        TROUPE_CHECK(state == member_state::connecting || state == member_state::connected);
        break;
      case gang_phase::proving:
      case gang_phase::serving:
        TROUPE_CHECK(state == member_state::connected);
        break;
      case gang_phase::over:
        break;
    }
    TROUPE_CHECK(!is_in_epoch(state) || !one.unchecked);
    if (state == member_state::absent) continue;
    ++here;
    const auto at = connections_.find(one.at);
    TROUPE_CHECK(at != connections_.end() && at->second.rank == one.said.rank);
    TROUPE_CHECK(&members_[static_cast<std::size_t>(one.said.rank.value)] == &one);
  }
  TROUPE_CHECK(here == static_cast<std::size_t>(std::count_if(
                           connections_.begin(), connections_.end(),
                           [](const auto& each) { return each.second.rank.has_value(); })));
  TROUPE_CHECK(!paths_.empty() && epoch_.incarnation == options_.incarnation);
  TROUPE_CHECK(phase_ != gang_phase::serving || !not_serving_since_);
}

}  // namespace troupe::actors
