#include "supervisor/node_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "schemas/codec.hpp"

namespace troupe::supervisor {

using schemas::supervisor_message;

int node_watch::first_rank_of(int node) const {
  return static_cast<int>(std::int64_t{node} * options_.world_size / options_.nnodes);
}

bool node_watch::is_of(base::rank_id rank, int node) const {
  return rank.value >= first_rank_of(node) && rank.value < first_rank_of(node + 1);
}

supervisor_message node_watch::own_heartbeat() {
  return {schemas::heartbeat{.protocol = schemas::protocol_version,
                             .build_id = options_.build_id,
                             .node_rank = options_.node_rank,
                             .nnodes = options_.nnodes,
                             .number = ++beats_}};
}

void node_watch::beat(machine_effects& effects) {
  const supervisor_message message = own_heartbeat();
  for (const auto& [node, other] : peers_) {
    effects.push_back(effect::tell_peer{other.connection, message});
  }
}

void node_watch::restart_windows(base::steady_time now) {
  for (auto& [node, other] : peers_) other.heard = now;
}

node_watch::losses node_watch::check(base::steady_time now, machine_effects& effects) {
  losses all;
  for (auto at = peers_.begin(); at != peers_.end();) {
    const peer_at one = at++;
    if (now - one->second.heard < lost_after) continue;
    effects.push_back(effect::close_peer{one->second.connection});
    const losses more =
        lose(one, fmt::format("no heartbeat for {} ms", lost_after.count()), now, effects);
    all.insert(all.end(), more.begin(), more.end());
  }
  if (dials() && dial_due_ && now >= *dial_due_) {
    dial_due_.reset();
    effects.push_back(effect::dial{});
  }
  return all;
}

std::optional<base::steady_time> node_watch::next_due() const {
  std::optional<base::steady_time> due = dials() ? dial_due_ : std::nullopt;
  for (const auto& [node, other] : peers_) {
    due = std::min(due.value_or(base::steady_time::max()), other.heard + lost_after);
  }
  return due;
}

void node_watch::dial_later(base::steady_time now) {
  dial_due_ = now + dial_delay_;
  dial_delay_ = std::min(dial_delay_ * 2, dial_delay_max);
}

void node_watch::complain(const std::string& line, machine_effects& effects) {
  if (line == last_complaint_) return;
  last_complaint_ = line;
  effects.push_back(effect::write_log{base::log_level::warning, line});
}

void node_watch::opened(connection_id connection, machine_effects& effects) {
  if (!dials() || opened_ || !peers_.empty()) {
    effects.push_back(effect::close_peer{connection});
    return;
  }
  opened_ = connection;
  effects.push_back(effect::tell_peer{connection, own_heartbeat()});
}

void node_watch::not_reached(const std::string& why, base::steady_time now,
                             machine_effects& effects) {
  complain(fmt::format("node 0 cannot be reached yet: {}", why), effects);
  dial_later(now);
}

void node_watch::refused_stranger(const std::string& why, machine_effects& effects) {
  complain(fmt::format("a connection from outside the gang is refused: {}", why), effects);
}

// What makes a peer another gang's, or another version's: one clause for the log of either side.
std::optional<std::string> node_watch::difference(const schemas::heartbeat& theirs) const {
  if (theirs.protocol != schemas::protocol_version) {
    return fmt::format("it speaks protocol {}, this node {}: start the same release on all nodes",
                       theirs.protocol, schemas::protocol_version);
  }
  if (theirs.build_id != options_.build_id) {
    return fmt::format("it runs build {}, this node {}: start the same binary on all nodes",
                       theirs.build_id, options_.build_id);
  }
  if (theirs.nnodes != options_.nnodes) {
    return fmt::format("it was started with --nnodes {}, this node with {}", theirs.nnodes,
                       options_.nnodes);
  }
  const int least = dials() ? 0 : 1;
  const int most = dials() ? 0 : options_.nnodes - 1;
  if (theirs.node_rank < least || theirs.node_rank > most) {
    return fmt::format(
        "it was started with --node-rank {}, expected {}", theirs.node_rank,
        least == most ? fmt::format("{}", least) : fmt::format("{} to {}", least, most));
  }
  if (peers_.contains(theirs.node_rank)) {
    return fmt::format("another machine is node {} already", theirs.node_rank);
  }
  return std::nullopt;
}

void node_watch::introduce(connection_id connection, const schemas::heartbeat& theirs,
                           base::steady_time now, machine_effects& effects) {
  if (const std::optional<std::string> reason = difference(theirs)) {
    complain(fmt::format("node {} is refused: {}", theirs.node_rank, *reason), effects);
    // It can then say the same in its own log.
    effects.push_back(effect::tell_peer{connection, own_heartbeat()});
    effects.push_back(effect::close_peer{connection});
    opened_.reset();
    dial_later(now);  // node 0 has no use for it
    return;
  }
  opened_.reset();
  dial_delay_ = dial_delay_min;
  last_complaint_.clear();
  peers_.emplace(theirs.node_rank, peer{connection, now});
  effects.push_back(effect::accept_peer{connection});
  effects.push_back(effect::tell_peer{connection, own_heartbeat()});
  effects.push_back(effect::write_log{base::log_level::info,
                                      fmt::format("node {} is connected", theirs.node_rank)});
}

node_watch::losses node_watch::said(connection_id connection, const supervisor_message& message,
                                    base::steady_time now, machine_effects& effects) {
  const auto* beat = std::get_if<schemas::heartbeat>(&message.body);
  const auto known = std::find_if(peers_.begin(), peers_.end(), [&](const auto& one) {
    return one.second.connection == connection;
  });
  if (known == peers_.end()) {
    if (beat != nullptr && (!dials() || opened_ == connection)) {
      introduce(connection, *beat, now, effects);
    }
    return {};
  }
  if (beat != nullptr) {
    known->second.heard = now;
    return {};
  }
  if (const auto* loss = std::get_if<schemas::rank_lost>(&message.body)) {
    return pass_on(known->first, *loss, effects);
  }
  complain(fmt::format("node {} sent a message that nodes do not send", known->first), effects);
  return {};
}

// A node speaks for its own ranks only, node 0 for all but those of this node.
node_watch::losses node_watch::pass_on(int from, const schemas::rank_lost& loss,
                                       machine_effects& effects) const {
  const bool known = loss.rank.value >= 0 && loss.rank.value < options_.world_size;
  const bool theirs = from == 0 ? !is_of(loss.rank, options_.node_rank) : is_of(loss.rank, from);
  if (!known || !theirs) {
    effects.push_back(
        effect::write_log{base::log_level::warning,
                          fmt::format("node {} said that rank {} is lost, which is not its own",
                                      from, loss.rank.value)});
    return {};
  }
  for (const auto& [node, other] : peers_) {
    if (node != from) effects.push_back(effect::tell_peer{other.connection, {loss}});
  }
  return {loss};
}

void node_watch::tell_all(const schemas::rank_lost& loss, machine_effects& effects) const {
  for (const auto& [node, other] : peers_) {
    effects.push_back(effect::tell_peer{other.connection, {loss}});
  }
}

node_watch::losses node_watch::lose(peer_at lost, const std::string& why, base::steady_time now,
                                    machine_effects& effects) {
  const int node = lost->first;
  peers_.erase(lost);
  const std::string cause = fmt::format("node {}: {}", node, why);
  effects.push_back(effect::write_log{base::log_level::warning, "lost " + cause});
  if (dials()) {
    dial_later(now);
    return {schemas::rank_lost{.rank = base::rank_id{0}, .cause = cause}};
  }
  losses all;
  for (int rank = first_rank_of(node); rank < first_rank_of(node + 1); ++rank) {
    all.push_back({.rank = base::rank_id{rank}, .cause = cause});
    tell_all(all.back(), effects);
  }
  return all;
}

node_watch::losses node_watch::gone(connection_id connection, const std::string& why,
                                    base::steady_time now, machine_effects& effects) {
  if (opened_ == connection) {
    opened_.reset();
    not_reached(why, now, effects);
    return {};
  }
  const auto known = std::find_if(peers_.begin(), peers_.end(), [&](const auto& one) {
    return one.second.connection == connection;
  });
  if (known == peers_.end()) return {};
  return lose(known, why, now, effects);
}

}  // namespace troupe::supervisor
