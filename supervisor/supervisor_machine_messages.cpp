// What supervisor_machine makes of messages: from ranks and from other nodes, all untrusted.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "supervisor/supervisor_machine.hpp"

namespace troupe::supervisor {
namespace {

using base::log_level;

constexpr std::size_t announcement_bytes_max = 4000;
constexpr std::size_t detail_bytes_max = 256;

// One line of JSON as far as a look at its bytes can tell: a reader of lines gets no other line.
bool is_one_object(std::string_view json) {
  return json.size() >= 2 && json.size() <= announcement_bytes_max && json.front() == '{' &&
         json.back() == '}' && std::none_of(json.begin(), json.end(), [](char letter) {
           return static_cast<unsigned char>(letter) < 0x20;
         });
}

}  // namespace

// --- ranks --------------------------------------------------------------------------------------

// A rank can send without end; the log must not grow with it.
void supervisor_machine::odd(slot& from, const std::string& what) {
  if (from.odd_messages++ % 1000 != 0) return;
  log(log_level::warning, fmt::format("rank {} sent {}: ignored", from.rank.value, what));
}

template <class Other>
void supervisor_machine::said(slot& from, const Other&) {
  odd(from, "a message that ranks do not send");
}

void supervisor_machine::on(const event::rank_said& seen) {
  slot* from = find(seen.rank);
  if (from == nullptr || from->is != state::running) return;
  std::visit([&](const auto& message) { said(*from, message); }, seen.message.body);
}

void supervisor_machine::on(const event::rank_garbled& seen) {
  if (slot* from = find(seen.rank)) odd(*from, fmt::format("no message ({})", seen.why));
}

void supervisor_machine::said(slot& from, const schemas::pong& message) {
  if (message.number > from.answered && message.number <= from.pings) {
    from.answered = message.number;
  }
}

void supervisor_machine::said(slot& from, const schemas::control_plane_listens& message) {
  if (&from != leader()) return odd(from, "a control plane of its own");
  control_plane_ = {message.host, message.port};
  for (const slot& one : slots_) {
    if (&one == &from || one.is != state::running) continue;
    effects_.push_back(effect::tell{one.rank, {control_plane_}});
  }
}

void supervisor_machine::said(slot& from, const schemas::segment_wanted& message) {
  if (&from != leader() || options_.nnodes != 1 || message.ranks != options_.world_size) {
    return odd(from, "a wish for a segment that this gang has no use for");
  }
  // It asked before it knew of a loss; it is told of that already.
  const bool all_run = std::all_of(slots_.begin(), slots_.end(),
                                   [](const slot& one) { return one.is == state::running; });
  if (!all_run) return;
  if (segment_) effects_.push_back(effect::abort_segment{});
  segment_ = message.epoch;
  effects_.push_back(effect::make_segment{message.epoch, message.ranks});
}

void supervisor_machine::on(const event::segment_made& seen) {
  if (segment_ != seen.epoch) return;
  for (const slot& one : slots_) effects_.push_back(effect::send_segment{one.rank, seen.epoch});
}

// Rank 0 waits for it, and has no other way to go on than to begin anew.
void supervisor_machine::on(const event::segment_not_made& seen) {
  if (segment_ != seen.epoch) return;
  segment_.reset();
  kill(*leader());
  lose(*leader(), fmt::format("no shared memory for the gang: {}", seen.why));
}

void supervisor_machine::said(slot& from, const schemas::phase_changed& message) {
  if (message.epoch != base::epoch_id{} && message.epoch == ended_epoch_) return;
  from.phase = message;
  if (from.phase.detail.size() > detail_bytes_max) from.phase.detail.resize(detail_bytes_max);
}

void supervisor_machine::said(slot& from, const schemas::announce& message) {
  if (!is_one_object(message.json)) return odd(from, "an announcement that is no line of JSON");
  effects_.push_back(effect::write_out{message.json});
}

void supervisor_machine::said(slot& from, const schemas::give_up& message) {
  const int code = message.exit_code >= 1 && message.exit_code <= 4 ? message.exit_code : 1;
  end(code, fmt::format("rank {}: {}", from.rank.value, message.reason));
}

// --- other nodes --------------------------------------------------------------------------------

void supervisor_machine::on(const event::peer_opened& seen) {
  nodes_.opened(seen.connection, effects_);
}

void supervisor_machine::on(const event::peer_not_reached& seen) {
  nodes_.not_reached(seen.why, now_, effects_);
}

void supervisor_machine::on(const event::peer_said& seen) {
  other_node_lost(nodes_.said(seen.connection, seen.message, now_, effects_));
}

void supervisor_machine::on(const event::peer_gone& seen) {
  other_node_lost(nodes_.gone(seen.connection, seen.why, now_, effects_));
}

void supervisor_machine::on(const event::stranger_refused& seen) {
  nodes_.refused_stranger(seen.why, effects_);
}

// --- who is in which epoch ----------------------------------------------------------------------

void supervisor_machine::leave_epoch(const schemas::rank_lost& loss) {
  why_not_joined_ = fmt::format("rank {} is lost: {}", loss.rank.value, loss.cause);
  for (slot& one : slots_) {
    if (one.phase.epoch != base::epoch_id{}) {
      ended_epoch_ = one.phase.epoch;
      one.phase = {schemas::rank_phase::waiting_for_ranks, {}, why_not_joined_};
    }
    const bool hears = one.is == state::running || one.is == state::starting;
    if (hears) effects_.push_back(effect::tell{one.rank, {loss}});
  }
}

health_status supervisor_machine::health() const {
  health_status status;
  bool all_joined = stage_ == stage::serving || stage_ == stage::draining;
  if (!all_joined) status.why = "this node is shutting down";
  for (const slot& one : slots_) {
    status.ranks.push_back({.rank = one.rank,
                            .running = one.is == state::running,
                            .phase = one.phase.phase,
                            .epoch = one.phase.epoch,
                            .restarts = one.policy.restarts(),
                            .detail = one.phase.detail});
    const bool joined = one.is == state::running && one.phase.epoch != base::epoch_id{} &&
                        one.phase.epoch == slots_.front().phase.epoch;
    if (all_joined && !joined) {
      const char* doing = one.is == state::running ? to_string(one.phase.phase) : "not running";
      status.why = fmt::format("rank {} is {}; {}", one.rank.value, doing, why_not_joined_);
    }
    all_joined = all_joined && joined;
  }
  status.joined = all_joined;
  if (all_joined) status.epoch = slots_.front().phase.epoch;
  return status;
}

}  // namespace troupe::supervisor
