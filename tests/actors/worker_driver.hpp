// A worker's machine with the hands on its clock, brought to any of its states in one call.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/worker/worker_machine.hpp"
#include "tests/actors/machine_case.hpp"

namespace troupe::actors {

class worker_driver {
 public:
  explicit worker_driver(worker_options options = {.self = description(1), .world_size = 2})
      : machine(std::move(options)) {}

  worker_driver& feed(const worker::event& event) {
    effects = machine.step(event, now);
    for (const worker::effect& effect : effects) {
      if (const auto* wake = std::get_if<worker::wake_at>(&effect)) wake_at = wake->when;
      if (const auto* dial = std::get_if<worker::dial>(&effect)) last_dial = dial->dial;
      if (const auto* load = std::get_if<worker::load>(&effect)) last_load = load->load;
    }
    return *this;
  }

  // Time passes; nothing else happens. The machine is woken where it has asked to be.
  worker_driver& wait(milliseconds pause) {
    const time_point until = now + pause;
    std::vector<worker::effect> all;
    while (wake_at && *wake_at <= until) {
      now = std::max(now, *wake_at);
      wake_at.reset();
      feed(worker::timer{});
      all.insert(all.end(), effects.begin(), effects.end());
      if (machine.over()) break;
    }
    now = until;
    effects = std::move(all);
    return *this;
  }

  template <class Body>
  worker_driver& hear(Body body) {
    return hear_as({.sender = base::rank_id{0}, .sequence = ++heard, .body = std::move(body)});
  }
  worker_driver& hear_as(schemas::control_message message) {
    return feed(worker::received{.dial = last_dial, .message = std::move(message)});
  }

  // Bodies of one kind that the last event made it say.
  template <class Body>
  [[nodiscard]] std::vector<Body> said() const {
    std::vector<Body> found;
    for (const worker::send& one : all_of<worker::send>(effects)) {
      if (const auto* body = std::get_if<Body>(&one.message.body)) found.push_back(*body);
    }
    return found;
  }
  [[nodiscard]] int messages() const { return count_of<worker::send>(effects); }
  [[nodiscard]] std::optional<worker::give_up> gave_up() const {
    const auto all = all_of<worker::give_up>(effects);
    return all.empty() ? std::nullopt : std::optional(all.front());
  }

  worker_driver& to_started() { return feed(worker::started{}); }
  worker_driver& to_dialing() {
    to_started();
    return feed(worker::leader_at{"leader", 8472});
  }
  worker_driver& to_joining() {
    to_dialing();
    return come_up();
  }
  worker_driver& come_up() {
    heard = 0;
    return feed(worker::control_up{last_dial});
  }
  worker_driver& to_welcomed() {
    to_joining();
    return hear(schemas::welcome{incarnation, "amx_bf16"});
  }
  worker_driver& to_waiting() {
    to_welcomed();
    return feed(worker::weights_loaded{last_load, {9}});
  }
  worker_driver& to_opening(std::uint64_t number = 1) {
    to_waiting();
    return hear(schemas::prepare{epoch(number)});
  }
  worker_driver& to_opened(std::uint64_t number = 1) {
    to_opening(number);
    return feed(worker::plane_opened{epoch(number), {1, 2}});
  }
  worker_driver& to_connecting(std::uint64_t number = 1) {
    to_opened(number);
    return hear(schemas::connect{epoch(number), {{7}, {8}}});
  }
  worker_driver& to_serving(std::uint64_t number = 1) {
    to_connecting(number);
    return feed(worker::plane_connected{epoch(number)});
  }

  worker_machine machine;
  time_point now{1h};
  std::vector<worker::effect> effects;
  std::optional<time_point> wake_at;
  std::uint64_t last_dial = 0;
  std::uint64_t last_load = 0;
  std::uint64_t heard = 0;  // sequence of the leader's last message
};

}  // namespace troupe::actors
