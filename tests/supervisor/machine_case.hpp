// A supervisor_machine with a clock of its own, whose effects read as short lines.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/supervisor_machine.hpp"

namespace troupe::supervisor::test {

using std::chrono::milliseconds;
using lines = std::vector<std::string>;

struct message_text {
  std::string operator()(const schemas::control_plane_at& one) {
    return fmt::format("control_plane_at {}:{}", one.host, one.port);
  }
  std::string operator()(const schemas::segment& one) {
    return fmt::format("segment {}", one.epoch.number);
  }
  std::string operator()(const schemas::rank_lost& one) {
    return fmt::format("rank_lost {} ({}) {}", one.rank.value, one.cause, one.restarts);
  }
  std::string operator()(const schemas::drain& one) {
    return fmt::format("drain {}", one.patience_ms);
  }
  std::string operator()(const schemas::ping& one) { return fmt::format("ping {}", one.number); }
  std::string operator()(const schemas::heartbeat& one) {
    return fmt::format("heartbeat {} of {}", one.node_rank, one.nnodes);
  }
  template <class Other>
  std::string operator()(const Other&) {
    return "a message that supervisors do not send";
  }
};

inline std::string text_of(const schemas::supervisor_message& message) {
  return std::visit(message_text{}, message.body);
}

struct effect_text {
  std::string operator()(const effect::spawn& one) {
    return fmt::format("spawn {}", one.rank.value);
  }
  std::string operator()(const effect::kill& one) { return fmt::format("kill {}", one.rank.value); }
  std::string operator()(const effect::tell& one) {
    return fmt::format("tell {} {}", one.rank.value, text_of(one.message));
  }
  std::string operator()(const effect::read_vitals& one) {
    return fmt::format("vitals {}", one.rank.value);
  }
  std::string operator()(const effect::make_segment& one) {
    return fmt::format("make_segment {} for {}", one.epoch.number, one.ranks);
  }
  std::string operator()(const effect::send_segment& one) {
    return fmt::format("send_segment {} to {}", one.epoch.number, one.rank.value);
  }
  std::string operator()(const effect::abort_segment&) { return "abort_segment"; }
  std::string operator()(const effect::stand_in& one) {
    return fmt::format("stand_in {} {}", one.on ? "on" : "off", one.reason);
  }
  std::string operator()(const effect::write_out& one) { return "out " + one.json; }
  std::string operator()(const effect::write_log& one) { return "log " + one.line; }
  std::string operator()(const effect::dial&) { return "dial"; }
  std::string operator()(const effect::tell_peer& one) {
    return fmt::format("tell_peer {} {}", one.connection.value, text_of(one.message));
  }
  std::string operator()(const effect::accept_peer& one) {
    return fmt::format("accept_peer {}", one.connection.value);
  }
  std::string operator()(const effect::close_peer& one) {
    return fmt::format("close_peer {}", one.connection.value);
  }
  std::string operator()(const effect::finish& one) {
    return fmt::format("finish {} {}", one.exit_code, one.cause);
  }
};

inline std::string text_of(const machine_effect& effect) {
  return std::visit(effect_text{}, effect);
}

class machine_case {
 public:
  explicit machine_case(machine_options options = {.world_size = 2, .has_http = true, .url = "u"})
      : machine(std::move(options)) {}

  // All effects of one event but logs, pings, heartbeats and looks at vitals.
  lines step(const machine_event& event) {
    lines told;
    for (const machine_effect& one : machine.step(event, now)) {
      const std::string line = text_of(one);
      all.push_back(line);
      const bool routine =
          line.starts_with("log ") || line.starts_with("vitals ") ||
          line.find(" ping ") != std::string::npos ||
          (line.find(" heartbeat ") != std::string::npos && line.find(" of ") != std::string::npos);
      if (!routine) told.push_back(line);
      if (const auto* spawned = std::get_if<effect::spawn>(&one)) spawns.push_back(spawned->rank);
    }
    return told;
  }

  // Also answers that the ranks have started.
  lines step_and_start(const machine_event& event) {
    lines told = step(event);
    for (const base::rank_id rank : std::exchange(spawns, {})) {
      const lines more = step(event::rank_started{rank});
      told.insert(told.end(), more.begin(), more.end());
    }
    return told;
  }

  // Lets time pass, with every timer on time. What was told in it.
  lines pass(milliseconds time) {
    lines told;
    const base::steady_time end = now + time;
    while (machine.next_due() <= end && !machine.finished()) {
      now = std::max(now, machine.next_due());
      const lines more = step_and_start(event::timer{});
      told.insert(told.end(), more.begin(), more.end());
    }
    now = end;
    return told;
  }

  lines exits(int rank, int code) {
    return step_and_start(
        event::rank_changed{base::rank_id{rank}, {base::child_change::what::exited, code}});
  }
  lines is_killed(int rank, int signal = 9) {
    return step_and_start(
        event::rank_changed{base::rank_id{rank}, {base::child_change::what::killed, signal}});
  }
  lines stops(int rank) {
    return step_and_start(
        event::rank_changed{base::rank_id{rank}, {base::child_change::what::stopped, 19}});
  }
  template <class Body>
  lines says(int rank, Body body) {
    return step(event::rank_said{base::rank_id{rank}, {std::move(body)}});
  }
  template <class Body>
  lines peer_says(std::uint64_t connection, Body body) {
    return step(event::peer_said{connection_id{connection}, {std::move(body)}});
  }
  [[nodiscard]] bool logged(const std::string& part) const {
    for (const std::string& line : all) {
      if (line.starts_with("log ") && line.find(part) != std::string::npos) return true;
    }
    return false;
  }

  supervisor_machine machine;
  base::steady_time now = base::steady_time{} + std::chrono::hours(1);
  lines all;  // every effect so far
  std::vector<base::rank_id> spawns;
};

}  // namespace troupe::supervisor::test
