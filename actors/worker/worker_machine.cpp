#include "actors/worker/worker_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace troupe::actors {

using namespace worker;  // NOLINT(google-build-using-namespace): the machine's own vocabulary

namespace {

bool has(const std::vector<std::string>& paths, const std::string& path) {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

}  // namespace

worker_machine::worker_machine(worker_options options)
    : options_(std::move(options)), chance_(options_.jitter_seed) {
  TROUPE_CHECK(!options_.self.instruction_paths.empty());
  path_ = options_.self.instruction_paths.front();
}

std::vector<effect> worker_machine::step(const event& event, time_point now) {
  if (over_) return {};
  TROUPE_CHECK(now >= now_);
  now_ = now;
  std::visit([this](const auto& happened) { on(happened); }, event);
  run_deadlines();
  if (!over_) {
    show();
    sleep();
  }
  check_invariants();
  return std::exchange(effects_, {});
}

// --- the link -----------------------------------------------------------------------------------

void worker_machine::on(const started&) {
  seeking_since_ = now_;
  why_seeking_ = "it has just started";
  load(path_);
}

void worker_machine::on(const leader_at& event) {
  const bool same = leader_ && leader_->host == event.host && leader_->port == event.port;
  if (same && link_ != worker_link::seeking) return;
  leader_ = event;
  if (link_ != worker_link::seeking) hang_up_and_seek("the leader has moved");
  dial_pause_.reset();
  dial_leader();
}

void worker_machine::on(const leader_unknown&) {
  leader_.reset();
  dial_due_.reset();
  if (link_ != worker_link::seeking) hang_up_and_seek("the leader is gone");
}

void worker_machine::hang_up_and_seek(const std::string& why) {
  effects_.emplace_back(hang_up{});
  seek(why);
}

// `dial_` moves on, so that whatever still comes of the old connection is an earlier one's.
void worker_machine::seek(const std::string& why) {
  link_ = worker_link::seeking;
  ++dial_;
  if (!seeking_since_) seeking_since_ = now_;
  why_seeking_ = why;
  resend_due_.reset();
  leave(why);
  if (leader_) dial_due_ = now_ + dial_pause_.next(chance_);
}

void worker_machine::dial_leader() {
  link_ = worker_link::dialing;
  dial_due_.reset();
  effects_.emplace_back(dial{.dial = ++dial_, .host = leader_->host, .port = leader_->port});
}

void worker_machine::on(const control_up& event) {
  if (event.dial != dial_ || link_ != worker_link::dialing) return;
  sent_ = 0;
  received_ = 0;
  ask_to_join();
}

void worker_machine::on(const control_down& event) {
  if (event.dial != dial_) return;
  seek(event.reason);
}

void worker_machine::ask_to_join() {
  link_ = worker_link::joining;
  say(options_.self);
  resend_due_ = now_ + worker_times::resend;
}

void worker_machine::say(decltype(schemas::control_message::body) body) {
  effects_.emplace_back(
      send{{.sender = options_.self.rank, .sequence = ++sent_, .body = std::move(body)}});
}

void worker_machine::on(const received& event) {
  if (event.dial != dial_ || link_ == worker_link::dialing) return;
  const schemas::control_message& message = event.message;
  if (message.sender != base::rank_id{0} || message.sequence <= received_) {
    ++repeated_dropped_;
    return;
  }
  received_ = message.sequence;
  std::visit([this](const auto& body) { take(body); }, message.body);
}

template <class Other>
void worker_machine::take(const Other&) {
  ++stale_dropped_;
}

void worker_machine::take(const schemas::welcome& message) {
  if (!has(options_.self.instruction_paths, message.instruction_path)) {
    take(schemas::refusal{
        fmt::format("the leader wants the instruction path {}, which rank {} does not have",
                    message.instruction_path, options_.self.rank.value)});
    return;
  }
  link_ = worker_link::welcomed;
  seeking_since_.reset();
  dial_pause_.reset();
  if (message.incarnation != incarnation_) {
    leave("the leader has begun anew");
    incarnation_ = message.incarnation;
    left_number_ = 0;
    refused_since_.reset();
  }
  if (message.instruction_path != path_) {
    leave("the weights are packed anew");
    load(message.instruction_path);
  }
  say_loaded();
}

void worker_machine::take(const schemas::refusal& message) {
  link_ = worker_link::refused;
  refusal_ = message.reason;
  seeking_since_.reset();
  if (!refused_since_) refused_since_ = now_;
  resend_due_ = now_ + refused_pause_.next(chance_);
  leave(message.reason);
}

// --- the weights --------------------------------------------------------------------------------

void worker_machine::load(const std::string& path) {
  weights_ = worker_weights::loading;
  path_ = path;
  load_due_.reset();
  progress_ = {};
  effects_.emplace_back(worker::load{.load = ++load_, .instruction_path = path});
}

void worker_machine::on(const weights_loaded& event) {
  if (event.load != load_ || weights_ != worker_weights::loading) return;
  weights_ = worker_weights::packed;
  share_digest_ = event.share_digest;
  load_pause_.reset();
  say_loaded();
}

void worker_machine::on(const load_failed& event) {
  if (event.load != load_ || weights_ != worker_weights::loading) return;
  if (!event.error.retryable) {
    end(exit_code_of(event.error.code), event.error.message);
    return;
  }
  weights_ = worker_weights::none;
  load_due_ = now_ + load_pause_.next(chance_);
  effects_.emplace_back(log{fmt::format("rank {}: loading failed, tries again: {}",
                                        options_.self.rank.value, event.error.message)});
}

void worker_machine::on(const load_progress& event) {
  if (event.load != load_ || weights_ != worker_weights::loading) return;
  progress_ = {.bytes = event.bytes, .total_bytes = event.total_bytes};
  if (link_ != worker_link::welcomed || now_ < progress_due_) return;
  progress_due_ = now_ + worker_times::progress_every;
  say(progress_);
}

void worker_machine::say_loaded() {
  if (link_ != worker_link::welcomed) return;
  resend_due_.reset();
  if (weights_ != worker_weights::packed || place_ != worker_place::out) return;
  say(schemas::loaded{.share_digest = share_digest_, .instruction_path = path_});
  resend_due_ = now_ + worker_times::resend;
}

// --- time ---------------------------------------------------------------------------------------

void worker_machine::on(const timer&) { wake_.reset(); }

void worker_machine::run_deadlines() {
  if (over_) return;
  if (take_due(dial_due_, now_)) dial_leader();
  if (take_due(load_due_, now_)) load(path_);
  if (take_due(drain_due_, now_)) leave("the time to drain is over");
  if (take_due(resend_due_, now_)) {
    if (link_ == worker_link::welcomed) {
      say_loaded();
    } else {
      ask_to_join();
    }
  }
  if (refused_since_ && link_ != worker_link::welcomed &&
      now_ >= *refused_since_ + options_.patience) {
    end(exit_refused, refusal_);
  } else if (seeking_since_ && now_ >= *seeking_since_ + options_.patience) {
    end(exit_lost_gang, fmt::format("rank {} found no leader in {} s: {}", options_.self.rank.value,
                                    options_.patience.count() / 1000, why_seeking_));
  } else if (draining_ && place_ == worker_place::out) {
    end(exit_fine, "drained");
  }
}

void worker_machine::end(int exit_code, std::string reason) {
  effects_.emplace_back(hang_up{});
  effects_.emplace_back(give_up{.exit_code = exit_code, .reason = std::move(reason)});
  over_ = true;
}

void worker_machine::sleep() {
  deadline next;
  for (const deadline& each : {dial_due_, resend_due_, load_due_, drain_due_, say_due_}) {
    next = sooner(next, each);
  }
  if (seeking_since_) next = sooner(next, *seeking_since_ + options_.patience);
  if (refused_since_ && link_ != worker_link::welcomed) {
    next = sooner(next, *refused_since_ + options_.patience);
  }
  if (next && next != wake_) effects_.emplace_back(wake_at{*next});
  wake_ = next;
}

void worker_machine::check_invariants() const {
  const bool in_epoch = place_ != worker_place::out;
  TROUPE_CHECK(in_epoch == (epoch_.number != 0));
  TROUPE_CHECK(!host_busy_ || in_epoch);
  // Whoever is in an epoch has a leader and its weights; whoever leaves need not.
  if (in_epoch && place_ != worker_place::leaving && !over_) {
    TROUPE_CHECK(link_ == worker_link::welcomed && weights_ == worker_weights::packed);
    TROUPE_CHECK(epoch_.incarnation == incarnation_ && epoch_.number > left_number_);
  }
  TROUPE_CHECK(place_ != worker_place::leaving || host_busy_);
  TROUPE_CHECK((place_ == worker_place::opened) <= !host_busy_);
  TROUPE_CHECK(link_ == worker_link::seeking || leader_.has_value());
  TROUPE_CHECK(over_ || seeking_since_.has_value() || link_ == worker_link::welcomed ||
               refused_since_.has_value());
}

}  // namespace troupe::actors
