// The leader's decisions: which requests are open, what each is owed, when the gang may answer.
//
//              epoch_began            the canary's token
//   waiting ----------------> proving -------------------> serving
//      ^                         |                            |
//      +-------------------------+--- epoch_ended, step_failed+
//
// Draining is beside that: nothing new is taken, what is open ends. Every open request keeps its
// whole log here (prompt, parameters, tokens so far) and goes on from it in the next epoch, with
// the token that would have come. It ends instead when that epoch does not come in time, computes
// by other numerics, or when a second gang is lost without a token of it: it may be what kills
// them.
// A pure machine: no clock, no thread, no I/O. One step of the engine is asked for at most.
//
//   leader_machine leader({.canary_token_id = 0});
//   for (leader_effect& effect : leader.step(leader_event::submitted{id, request}, now)) ...
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/gang_service.hpp"
#include "actors/machine.hpp"
#include "base/error.hpp"
#include "base/ids.hpp"
#include "schemas/sequence_log.hpp"

namespace troupe::actors {

struct leader_options {
  // From admission to the last token, for a request that names no patience; also the most it may.
  std::chrono::milliseconds patience_max{600'000};
  // How long a request waits for the next epoch. Loading a large model takes longer: another gang
  // answers sooner then.
  std::chrono::milliseconds repair_patience{30'000};
  // Epochs that may be lost under a request without a token of it in between.
  int fruitless_losses_max = 1;
  // An idle gang computes one token this often, so that "ready" is never older than ready_window.
  std::chrono::milliseconds canary_every{4'000};
  std::chrono::milliseconds ready_window{10'000};
  std::int32_t canary_token_id = 0;
};

// One choice of one request. Request 0 is the canary; others are the caller's, never used twice.
struct choice_key {
  base::request_id request;
  std::uint32_t choice = 0;
  friend auto operator<=>(const choice_key&, const choice_key&) = default;
};
inline constexpr base::request_id canary_request{0};

namespace leader_event {
struct epoch_began {
  base::epoch_id epoch;
  std::string numerics = {};  // where these differ, the next token may
};
struct epoch_ended {
  base::epoch_id epoch;
  std::string reason;
  std::vector<choice_key> running = {};  // what the engine was computing, not what waited in it
};
struct submitted {
  base::request_id id;
  completion_request request;
};
struct cancelled {
  base::request_id id;
};
struct choice_satisfied {
  choice_key key;
};
struct start_refused {
  choice_key key;
  base::error error;
};
// One token of a step, or why the sequence has none.
struct stepped_token {
  choice_key key;
  schemas::sampled_token token;
  std::optional<schemas::finish_reason> finished;
  std::optional<base::error> failed;
  std::optional<std::int64_t> cached_tokens = {};
  std::vector<schemas::sampled_token> prompt_logprobs = {};
};
struct stepped {
  std::vector<stepped_token> tokens;
  bool computed = true;  // false: all that was to be computed had left before
};
struct step_failed {
  base::error error;
  std::vector<choice_key> running = {};
};
struct drain {};
struct woke {};
}  // namespace leader_event

using leader_input =
    std::variant<leader_event::epoch_began, leader_event::epoch_ended, leader_event::submitted,
                 leader_event::cancelled, leader_event::choice_satisfied,
                 leader_event::start_refused, leader_event::stepped, leader_event::step_failed,
                 leader_event::drain, leader_event::woke>;

namespace leader_effect {
struct start {  // a sequence enters the engine
  choice_key key;
  schemas::sequence_log log;
};
struct stop {  // a sequence leaves it
  choice_key key;
};
// The engine is to compute one step, once what has come meanwhile is seen; its answer is stepped or
// step_failed. Sequences enter and leave until it begins.
struct step {};
struct tokens {
  base::request_id id;
  std::vector<choice_token> tokens;
};
struct end {
  base::request_id id;
  base::result<void> outcome;
};
struct proved {  // the first real step of the epoch is done
  base::epoch_id epoch;
};
struct failed {  // a step failed: the epoch is over for this rank
  base::epoch_id epoch;
  std::string reason;
};
struct release {  // the epoch's engine and executor are to be destroyed
  base::epoch_id epoch;
};
struct drained {};
struct wake_at {
  time_point when;
};
}  // namespace leader_effect

using leader_output = std::variant<leader_effect::start, leader_effect::stop, leader_effect::step,
                                   leader_effect::tokens, leader_effect::end, leader_effect::proved,
                                   leader_effect::failed, leader_effect::release,
                                   leader_effect::drained, leader_effect::wake_at>;

class leader_machine {
 public:
  explicit leader_machine(leader_options options);

  [[nodiscard]] std::vector<leader_output> step(leader_input event, time_point now);

  // A real decode step finished in this epoch, within the ready window, and nothing is draining.
  [[nodiscard]] bool ready(time_point now) const noexcept;
  [[nodiscard]] time_point ready_until() const noexcept {
    return last_step_ + options_.ready_window;
  }
  [[nodiscard]] bool draining() const noexcept { return draining_; }
  [[nodiscard]] std::size_t open_requests() const noexcept { return open_.size(); }
  [[nodiscard]] std::uint64_t cancelled() const noexcept { return cancelled_; }
  [[nodiscard]] std::uint64_t carried() const noexcept { return carried_; }
  [[nodiscard]] std::uint64_t stale_dropped() const noexcept { return stale_dropped_; }

 private:
  enum class phase : std::uint8_t { waiting, proving, serving };

  struct open_choice {
    schemas::sampling_params params;
    std::vector<std::int32_t> emitted_ids;
    bool done = false;
    bool in_engine = false;
  };
  struct open_request {
    std::vector<std::int32_t> prompt_ids;
    schemas::cache_scope scope;
    std::vector<open_choice> choices;
    time_point deadline;
    std::size_t undone = 0;
    int fruitless_losses = 0;
    std::optional<time_point> lost_at = {};  // waits for an epoch since
  };

  void on(leader_event::epoch_began& event);
  void on(leader_event::epoch_ended& event);
  void on(leader_event::submitted& event);
  void on(leader_event::cancelled& event);
  void on(leader_event::choice_satisfied& event);
  void on(leader_event::start_refused& event);
  void on(leader_event::stepped& event);
  void on(leader_event::step_failed& event);
  void on(leader_event::drain& event);
  void on(leader_event::woke& event);

  void on_failure(const base::error& error, const std::vector<choice_key>& running = {});
  void accept(leader_event::stepped_token& token,
              std::map<base::request_id, std::vector<choice_token>>& emitted);
  void accept_canary(const leader_event::stepped_token& token);
  [[nodiscard]] open_request* find(base::request_id id);  // nullptr: not open (any more)
  void close_choice(open_request& request, choice_key key, bool engine_knows);
  void end_request(base::request_id id, base::result<void> outcome);
  void end_if_complete(base::request_id id);
  void leave_epoch(const std::string& reason, const std::vector<choice_key>& running = {});
  void lose(base::request_id id, const std::string& reason, bool was_computed);
  void end_where_numerics_differ();
  void resume();
  void start_choice(base::request_id id, open_request& request, std::uint32_t choice);
  [[nodiscard]] time_point due(const open_request& request) const;
  void start(choice_key key, schemas::sequence_log log);
  void start_canary();
  void go_on();
  void check() const;

  const leader_options options_;
  phase phase_ = phase::waiting;
  base::epoch_id epoch_;
  std::string numerics_;  // of the last epoch
  bool draining_ = false;
  bool drained_said_ = false;
  bool stepping_ = false;
  bool canary_running_ = false;
  time_point now_;
  time_point last_step_;
  std::map<base::request_id, open_request> open_;
  std::size_t in_engine_ = 0;  // sequences, the canary among them
  std::uint64_t cancelled_ = 0;
  std::uint64_t carried_ = 0;  // requests that went on in another epoch, each time
  std::uint64_t stale_dropped_ = 0;
  std::vector<leader_output> effects_;
};

}  // namespace troupe::actors
