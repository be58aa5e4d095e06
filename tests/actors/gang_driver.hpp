// A gang's machine with the hands on its clock, brought to any of its phases in one call.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/gang/gang_machine.hpp"
#include "tests/actors/machine_case.hpp"

namespace troupe::actors {

struct gang_setup {
  int world = 3;
  bool wants_segment = false;
  std::vector<std::string> paths = {};  // of the leader; empty: all of description()
  share_check check_share = {};
};

inline gang_options options_of(const gang_setup& setup) {
  schemas::join_request leader = description(0);
  if (!setup.paths.empty()) leader.instruction_paths = setup.paths;
  return {.rules = {.leader = std::move(leader), .world_size = setup.world},
          .incarnation = incarnation,
          .wants_segment = setup.wants_segment,
          .check_share = setup.check_share};
}

class gang_driver {
 public:
  explicit gang_driver(const gang_setup& setup = {})
      : machine(options_of(setup)), world(setup.world) {
    feed(gang::started{});
  }

  gang_driver& feed(const gang::event& event) {
    effects = machine.step(event, now);
    for (const gang::effect& effect : effects) {
      if (const auto* wake = std::get_if<gang::wake_at>(&effect)) wake_at = wake->when;
    }
    return *this;
  }

  gang_driver& wait(milliseconds pause) {
    const time_point until = now + pause;
    std::vector<gang::effect> all;
    while (wake_at && *wake_at <= until) {
      now = std::max(now, *wake_at);
      wake_at.reset();
      feed(gang::timer{});
      all.insert(all.end(), effects.begin(), effects.end());
      if (machine.phase() == gang_phase::over) break;
    }
    now = until;
    effects = std::move(all);
    return *this;
  }

  // Rank r speaks on connection r + 1 unless said otherwise.
  static connection_id line(int rank) { return {static_cast<std::uint64_t>(rank) + 1}; }

  template <class Body>
  gang_driver& hear(int rank, Body body) {
    return hear_on(line(rank), rank, std::move(body));
  }
  template <class Body>
  gang_driver& hear_on(connection_id connection, int rank, Body body) {
    return feed(gang::received{
        connection, {.sender = {rank}, .sequence = ++spoken[connection], .body = std::move(body)}});
  }
  gang_driver& join(int rank) { return hear(rank, description(rank)); }
  gang_driver& load(int rank) { return hear(rank, schemas::loaded{{}, "amx_bf16"}); }

  template <class Event>
  gang_driver& each(Event&& happens) {
    for (int rank = 0; rank < world; ++rank) happens(rank);
    return *this;
  }
  gang_driver& to_joined() {
    return each([this](int rank) { join(rank); });
  }
  // All have loaded: an epoch begins by itself.
  gang_driver& to_preparing() {
    to_joined();
    return each([this](int rank) { load(rank); });
  }
  gang_driver& all_prepared(std::uint64_t number) {
    return each([&](int rank) {
      hear(rank, schemas::prepared{epoch(number), {static_cast<std::uint8_t>(rank)}});
    });
  }
  gang_driver& all_connected(std::uint64_t number) {
    return each([&](int rank) { hear(rank, schemas::connected{epoch(number)}); });
  }
  gang_driver& to_connecting() {
    to_preparing();
    return all_prepared(1);
  }
  gang_driver& to_proving() {
    to_connecting();
    return all_connected(1);
  }
  gang_driver& to_serving() {
    to_proving();
    return feed(gang::canary_done{epoch(1)});
  }

  // Bodies of one kind that the last event made it say, by connection.
  template <class Body>
  [[nodiscard]] std::multimap<connection_id, Body> said() const {
    std::multimap<connection_id, Body> found;
    for (const gang::send& one : all_of<gang::send>(effects)) {
      if (const auto* body = std::get_if<Body>(&one.message.body)) {
        found.emplace(one.connection, *body);
      }
    }
    return found;
  }
  template <class Body>
  [[nodiscard]] int count_said() const {
    return static_cast<int>(said<Body>().size());
  }
  [[nodiscard]] std::string refusal(int rank) const {
    const auto all = said<schemas::refusal>();
    const auto found = all.find(line(rank));
    return found == all.end() ? "" : found->second.reason;
  }
  [[nodiscard]] std::vector<std::string> logs() const {
    std::vector<std::string> lines;
    for (const gang::log& one : all_of<gang::log>(effects)) lines.push_back(one.line);
    return lines;
  }
  [[nodiscard]] std::optional<gang::give_up> gave_up() const {
    const auto all = all_of<gang::give_up>(effects);
    return all.empty() ? std::nullopt : std::optional(all.front());
  }
  [[nodiscard]] rank_status rank(int rank) const {
    return machine.view().ranks.at(static_cast<std::size_t>(rank));
  }

  gang_machine machine;
  int world;
  time_point now{1h};
  std::vector<gang::effect> effects;
  std::optional<time_point> wake_at;
  std::map<connection_id, std::uint64_t> spoken;
};

}  // namespace troupe::actors
