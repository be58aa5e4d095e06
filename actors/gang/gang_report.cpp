// What people see of a gang: its view, one line about what it waits for.
#include <fmt/format.h>

#include "actors/gang/gang_machine.hpp"

namespace troupe::actors {

namespace {

constexpr int named_max = 4;  // ranks in one line

std::string percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return "loads";
  return fmt::format("loads ({:.0f} %)",
                     100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

rank_state shown_as(member_state state) {
  switch (state) {
    case member_state::absent:
      return rank_state::absent;
    case member_state::loading:
      return rank_state::loading;
    case member_state::waiting:
    case member_state::leaving:
      return rank_state::waiting;
    default:
      break;
  }
  return rank_state::connecting;
}

}  // namespace

std::string gang_machine::describe(const member& who) const {
  switch (who.state) {
    case member_state::absent:
      return who.detail.empty() ? "has not joined" : "is absent: " + printable(who.detail);
    case member_state::loading:
      return percent(who.loaded_bytes, who.total_bytes);
    case member_state::waiting:
      return "waits";
    case member_state::preparing:
      return "opens its data plane";
    case member_state::prepared:
      return "has opened its data plane";
    case member_state::connecting:
      return "connects to the other ranks";
    case member_state::connected:
      return phase_ == gang_phase::serving ? "serves" : "is connected";
    case member_state::leaving:
      return fmt::format("has not yet left epoch {}", epoch_.number);
  }
  return {};
}

// Those that hold the gang up in its phase.
std::string gang_machine::missing() const {
  member_state wanted = member_state::waiting;
  if (phase_ == gang_phase::segment) return "no shared segment from the supervisor";
  if (phase_ == gang_phase::preparing) wanted = member_state::prepared;
  if (phase_ == gang_phase::connecting) wanted = member_state::connected;
  if (phase_ == gang_phase::proving) return "no first decode step";
  std::string line;
  int held_up = 0;
  for (std::size_t rank = 0; rank < members_.size(); ++rank) {
    if (members_[rank].state == wanted) continue;
    if (++held_up > named_max) continue;
    line += fmt::format("{}rank {} {}", line.empty() ? "" : ", ", rank, describe(members_[rank]));
  }
  if (held_up > named_max) line += fmt::format(" and {} more", held_up - named_max);
  return line.empty() ? "begins again shortly" : line;
}

void gang_machine::show() {
  const bool serving = phase_ == gang_phase::serving;
  if (shown_ == phase_ && (!say_due_ || now_ < *say_due_)) return;
  shown_ = phase_;
  say_due_.reset();
  if (!serving) say_due_ = now_ + gang_times::say_every;
  effects_.emplace_back(gang::log{serving
                                      ? fmt::format("gang: epoch {} serves with {} on {} ranks",
                                                    epoch_.number, paths_.front(), members_.size())
                                      : fmt::format("gang: {}", not_serving())});
}

std::string gang_machine::not_serving() const {
  switch (phase_) {
    case gang_phase::gathering:
      if (why_ended_.empty()) return missing();
      return fmt::format("{}; epoch {} ended: {}", missing(), epoch_.number, why_ended_);
    case gang_phase::over:
      return "it has ended";
    case gang_phase::serving:
      return {};
    default:
      break;
  }
  return fmt::format("epoch {} forms: {}", epoch_.number, missing());
}

gang_view gang_machine::view() const {
  gang_view seen{.epoch = epoch_,
                 .ready = phase_ == gang_phase::serving && !draining_,
                 .draining = draining_,
                 .not_ready = draining_ ? "it is draining" : not_serving(),
                 .instruction_path = paths_.front(),
                 .ranks = {},
                 .repairs = repairs_,
                 .stale_dropped = stale_dropped_};
  for (std::size_t rank = 0; rank < members_.size(); ++rank) {
    const member& one = members_[rank];
    seen.ranks.push_back(
        {.rank = base::rank_id{static_cast<std::int32_t>(rank)},
         .state = phase_ == gang_phase::serving ? rank_state::serving : shown_as(one.state),
         .node = printable(one.said.node),
         .detail = describe(one),
         .restarts = one.restarts});
  }
  return seen;
}

}  // namespace troupe::actors
