// A leader machine, its clock, and what it did last.
#pragma once

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "actors/leader/leader_machine.hpp"
#include "base/check.hpp"

namespace troupe::actors {

inline constexpr base::epoch_id epoch_1{7, 1};
inline constexpr base::epoch_id epoch_2{7, 2};

struct scripted_token {
  std::uint64_t request = 0;
  std::uint32_t choice = 0;
  std::int32_t token_id = 0;
  bool finished = false;
};

class leader_driver {
 public:
  leader_driver() : machine_({}) {}

  // In epoch 1, ready, idle.
  static leader_driver serving() {
    leader_driver driver;
    driver.tell(leader_event::epoch_began{epoch_1});
    driver.finish_step();
    return driver;
  }

  void tell(leader_input event) { did_ = machine_.step(std::move(event), now_); }
  void submit(std::uint64_t id, std::uint32_t choices = 1,
              std::optional<std::chrono::milliseconds> patience = {}) {
    completion_request request;
    request.prompt_ids = {1, 2, 3};
    request.params.seed = 99;
    request.scope.tenant = std::string("t");  // g++ 12 warns of an assigned literal
    request.choices = choices;
    request.patience = patience;
    tell(leader_event::submitted{base::request_id{id}, std::move(request)});
  }
  void stepped(const std::vector<scripted_token>& tokens) {
    leader_event::stepped event;
    for (const scripted_token& token : tokens) {
      leader_event::stepped_token made;
      made.key = {base::request_id{token.request}, token.choice};
      made.token.token_id = token.token_id;
      if (token.finished) made.finished = schemas::finish_reason::length;
      event.tokens.push_back(std::move(made));
    }
    tell(std::move(event));
  }
  // The canary's token.
  void finish_step() { stepped({{canary_request.value, 0, 0, true}}); }
  void fail_choice(base::request_id id, std::uint32_t choice, base::error_code code) {
    leader_event::stepped_token failed;
    failed.key = {id, choice};
    failed.failed = base::error{code, "not finite", "t"};
    leader_event::stepped event;
    event.tokens.push_back(std::move(failed));
    tell(std::move(event));
  }
  void wait(std::chrono::milliseconds time) { now_ += time; }

  [[nodiscard]] bool ready() const { return machine_.ready(now_); }
  [[nodiscard]] time_point now() const { return now_; }
  [[nodiscard]] const leader_machine& machine() const { return machine_; }

  // Of the last event:
  template <class Effect>
  [[nodiscard]] std::vector<Effect> all() const {
    std::vector<Effect> found;
    for (const leader_output& effect : did_) {
      if (const auto* kind = std::get_if<Effect>(&effect)) found.push_back(*kind);
    }
    return found;
  }
  template <class Effect>
  [[nodiscard]] std::size_t count() const {
    return all<Effect>().size();
  }
  template <class Effect>
  [[nodiscard]] Effect last() const {
    const auto found = all<Effect>();
    TROUPE_CHECK(!found.empty());
    return found.back();
  }

 private:
  leader_machine machine_;
  time_point now_{std::chrono::hours(1)};
  std::vector<leader_output> did_;
};

}  // namespace troupe::actors
