// What carries out the leader machine's effects: the engine of the epoch, the sinks of the open
// requests, the figures others read. One thread. Internal to actors/leader.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "actors/leader/leader.hpp"

namespace troupe::actors {

// Written by the leader's thread, read by any.
struct leader_figures {
  std::atomic<bool> draining{false};
  std::atomic<std::int64_t> ready_until_ns{0};  // steady clock; 0: not ready
  std::atomic<std::int64_t> open_sequences{0};  // admitted and not ended: the queue's bound
  std::atomic<std::int64_t> engine_sequences{0};
  std::atomic<std::int64_t> running{0};
  std::atomic<std::int64_t> blocks_free{0};
  std::atomic<std::uint64_t> steps{0};
  std::atomic<std::uint64_t> prompt_tokens{0};
  std::atomic<std::uint64_t> prefill_tokens{0};
  std::atomic<std::uint64_t> generation_tokens{0};
  std::atomic<std::uint64_t> preemptions{0};
  std::atomic<std::uint64_t> prefix_tokens_queried{0};
  std::atomic<std::uint64_t> prefix_tokens_hit{0};
  std::atomic<std::uint64_t> cancelled{0};
  std::atomic<std::uint64_t> carried{0};
  std::atomic<std::uint64_t> steps_begun{0};
  std::atomic<std::uint64_t> steps_after_cancel{0};
  std::atomic<std::uint64_t> stale_dropped{0};
};

// What arrives: an event for the machine, and what goes with some of them.
struct leader_mail {
  leader_input event;
  std::unique_ptr<engine::executor> ranks = {};  // with epoch_began
  std::shared_ptr<completion_sink> sink = {};    // with submitted
  std::uint64_t steps_begun = 0;                 // with cancelled: when the client went
};

class leader_shell {
 public:
  leader_shell(leader_parts parts, leader_callbacks callbacks,
               std::shared_ptr<leader_figures> figures);

  // Takes one mail through the machine. A step that it asks for is left to run_step().
  void take(leader_mail mail, time_point now);
  [[nodiscard]] bool wants_step() const noexcept { return wants_step_; }
  void run_step();
  // When take(woke) is due; none: never.
  [[nodiscard]] std::optional<time_point> wake_at() const noexcept { return wake_at_; }

 private:
  struct epoch_engine {
    std::unique_ptr<engine::executor> ranks;
    std::unique_ptr<engine::engine> engine;
    std::map<choice_key, base::sequence_id> ids;
    std::map<base::sequence_id, choice_key> keys;
  };

  struct open_sink {
    std::shared_ptr<completion_sink> sink;
    std::int64_t sequences = 0;  // counted in open_sequences
  };

  void apply(leader_input event, time_point now);
  void run(leader_effect::start& effect);
  void run(leader_effect::stop& effect);
  void run(leader_effect::step& effect);
  void run(leader_effect::tokens& effect);
  void run(leader_effect::end& effect);
  void run(leader_effect::proved& effect);
  void run(leader_effect::failed& effect);
  void run(leader_effect::release& effect);
  void run(leader_effect::drained& effect);
  void run(leader_effect::wake_at& effect);
  void forget(choice_key key);
  [[nodiscard]] std::uint64_t steps_begun() const;
  [[nodiscard]] std::vector<choice_key> running() const;
  void publish(time_point now);

  const leader_parts parts_;
  const leader_callbacks callbacks_;
  const std::shared_ptr<leader_figures> figures_;
  leader_machine machine_;
  std::unique_ptr<epoch_engine> current_;
  std::unique_ptr<epoch_engine> next_;  // of an epoch that the machine has not begun yet
  std::map<base::request_id, open_sink> sinks_;
  std::deque<leader_input> follow_ups_;  // events that effects gave rise to
  std::optional<time_point> wake_at_;
  bool wants_step_ = false;
  std::uint64_t stopped_ = 0;       // sequences that left the engine before their end
  std::uint64_t steps_before_ = 0;  // of the engines of epochs gone by
  std::uint64_t prefill_before_ = 0;
  std::uint64_t preemptions_before_ = 0;
  engine::prefix_counts prefixes_before_;
};

}  // namespace troupe::actors
