// Who is here and what they say: connections, joins, members' states.
#include <fmt/format.h>

#include <utility>

#include "actors/gang/gang_machine.hpp"
#include "base/check.hpp"

namespace troupe::actors {

using namespace gang;  // NOLINT(google-build-using-namespace): the machine's own vocabulary

namespace {

// A member has one connection and, while it comes back, a second; the rest are probes of ranks that
// do not belong here.
constexpr std::size_t connections_of(int world_size) {
  return 64 + 4 * static_cast<std::size_t>(world_size);
}

}  // namespace

void gang_machine::on(const received& event) {
  const auto known = connections_.find(event.connection);
  if (known == connections_.end() &&
      connections_.size() >= connections_of(options_.rules.world_size)) {
    effects_.emplace_back(drop{event.connection});
    return;
  }
  connection& from = connections_[event.connection];
  const schemas::control_message& message = event.message;
  if (message.sequence <= from.received || (from.rank && message.sender != *from.rank)) {
    ++repeated_dropped_;
    return;
  }
  from.received = message.sequence;
  if (const auto* asks = std::get_if<schemas::join_request>(&message.body)) {
    join(event.connection, *asks);
  } else if (from.rank) {
    member& who = members_[static_cast<std::size_t>(from.rank->value)];
    std::visit([this, &who](const auto& body) { take(who, body); }, message.body);
  } else {
    // It believes to be in, for the gang it is not: it has to come again.
    hang_up(event.connection);
  }
}

void gang_machine::on(const connection_down& event) {
  const auto found = connections_.find(event.connection);
  if (found == connections_.end()) return;
  if (found->second.rank) {
    lose(members_[static_cast<std::size_t>(found->second.rank->value)], event.reason);
  }
  connections_.erase(event.connection);
}

void gang_machine::on(const rank_lost& event) {
  if (event.rank.value < 0 || event.rank.value >= options_.rules.world_size) return;
  member& who = members_[static_cast<std::size_t>(event.rank.value)];
  who.restarts = event.restarts;
  const connection_id at = who.at;
  const bool was_here = who.state != member_state::absent;
  lose(who, event.cause);
  if (was_here) hang_up(at);
}

void gang_machine::hang_up(connection_id on) {
  connections_.erase(on);
  effects_.emplace_back(drop{on});
}

void gang_machine::join(connection_id from, const schemas::join_request& asks) {
  if (const auto rank = connections_[from].rank) {
    lose(members_[static_cast<std::size_t>(rank->value)], "it joins again");
  }
  if (auto reason = why_refused(asks, options_.rules)) {
    refuse(from, asks, std::move(*reason));
    return;
  }
  std::vector<std::string> paths = common_paths(paths_, asks.instruction_paths);
  if (paths.empty()) {
    refuse(from, asks, no_common_path(asks, paths_));
    return;
  }
  member& who = members_[static_cast<std::size_t>(asks.rank.value)];
  if (who.state != member_state::absent) {
    if (who.said.node != asks.node) {
      refuse(from, asks,
             fmt::format("{} is here already, from {}; give every node its own "
                         "--node-rank",
                         name_of(asks), printable(who.said.node)));
      return;
    }
    const connection_id old = who.at;
    lose(who, "it joins again; is its --node-rank given twice?");
    hang_up(old);
  }
  narrow(std::move(paths));
  connections_[from].rank = asks.rank;
  refused_.erase(asks.rank);
  who.state = member_state::loading;
  who.at = from;
  who.said = asks;
  welcome(who);
}

void gang_machine::refuse(connection_id to, const schemas::join_request& asks, std::string reason) {
  const bool in_range = asks.rank.value >= 0 && asks.rank.value < options_.rules.world_size;
  std::string& last = refused_[in_range ? asks.rank : base::rank_id{-1}];
  if (last != reason) effects_.emplace_back(log{"refused: " + reason});
  last = reason;
  if (in_range) {
    member& who = members_[static_cast<std::size_t>(asks.rank.value)];
    who.detail = "refused: " + reason;  // shown while it is absent
  }
  say(to, schemas::refusal{std::move(reason)});
}

void gang_machine::welcome(const member& who) {
  say(who.at,
      schemas::welcome{.incarnation = epoch_.incarnation, .instruction_path = paths_.front()});
}

// Only ever fewer paths: what was packed for a worse one stays useful.
void gang_machine::narrow(std::vector<std::string> paths) {
  const bool changed = paths.front() != paths_.front();
  paths_ = std::move(paths);
  if (!changed) return;
  for (member& other : members_) {
    if (other.state == member_state::absent) continue;
    other.state = member_state::loading;
    welcome(other);
  }
}

void gang_machine::lose(member& who, std::string why) {
  if (who.state == member_state::absent) {
    who.detail = std::move(why);
    return;
  }
  const std::string line = fmt::format("{} is lost: {}", name_of(who.said), printable(why));
  connections_[who.at].rank.reset();
  who.state = member_state::absent;
  who.loaded_bytes = 0;
  who.total_bytes = 0;
  who.detail = std::move(why);
  if (forming_or_serving()) end_epoch(line);
}

// --- what members say ---------------------------------------------------------------------------

template <class Other>
void gang_machine::take(member&, const Other&) {
  ++stale_dropped_;
}

void gang_machine::take(member& who, const schemas::loading_progress& message) {
  if (message.bytes > who.loaded_bytes && not_serving_since_) not_serving_since_ = now_;
  who.loaded_bytes = message.bytes;
  who.total_bytes = message.total_bytes;
}

void gang_machine::take(member& who, const schemas::loaded& message) {
  // Packed for another path: it has not heard of the common one yet, and is told again.
  if (message.instruction_path != paths_.front()) return;
  if (who.state == member_state::waiting || who.state == member_state::preparing) return;
  if (is_in_epoch(who.state)) end_epoch(fmt::format("{} has left it", name_of(who.said)));
  who.state = member_state::waiting;
  if (options_.check_share) who.unchecked = message;
  check_shares();
}

// All that came before rank 0 had loaded are checked when it has.
void gang_machine::check_shares() {
  if (members_.front().state < member_state::waiting) return;
  for (member& one : members_) {
    if (one.state != member_state::waiting || !one.unchecked) continue;
    const schemas::loaded share = *std::exchange(one.unchecked, std::nullopt);
    auto reason = options_.check_share(one.said, share);
    if (!reason) continue;
    const schemas::join_request said = one.said;
    const connection_id at = one.at;
    lose(one, "refused: " + *reason);
    refuse(at, said, std::move(*reason));
  }
}

void gang_machine::take(member& who, const schemas::prepared& message) {
  if (stale(message.epoch) || who.state != member_state::preparing) return;
  who.state = member_state::prepared;
  who.address = message.address;
}

void gang_machine::take(member& who, const schemas::connected& message) {
  if (stale(message.epoch) || who.state != member_state::connecting) return;
  who.state = member_state::connected;
}

void gang_machine::take(member& who, const schemas::epoch_ended& message) {
  if (stale(message.epoch)) return;
  end_epoch(fmt::format("{} has left it: {}", name_of(who.said), printable(message.reason)));
}

bool gang_machine::stale(base::epoch_id epoch) {
  if (forming_or_serving() && epoch == epoch_) return false;
  ++stale_dropped_;
  return true;
}

}  // namespace troupe::actors
