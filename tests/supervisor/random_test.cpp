// Random sequences of events: a machine over a world of processes that die, stop, hang and talk
// nonsense. Whatever comes, what it does must make sense to that world.
#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/supervisor/machine_case.hpp"

namespace troupe::supervisor::test {
namespace {

constexpr int ranks = 4;
constexpr int seeds = 400;
constexpr int events_a_seed = 600;

class world {
 public:
  explicit world(std::uint32_t seed) : chance_(seed), machine_(options_of(chance_)) {}

  void run();
  int events = 0;
  int spawns = 0;

 private:
  struct process {
    bool alive = false;
    bool killed = false;   // SIGKILL is on its way
    bool failing = false;  // could not be started, which the machine is about to hear
  };

  machine_options options_of(std::mt19937& chance) {
    machine_options_ = {.world_size = ranks,
                        .has_http = chance() % 2 == 0,
                        .one_shot = chance() % 8 == 0,
                        .restarts = {.restarts = chance() % 4 == 0 ? 3 : 1000},
                        .drain_patience = milliseconds(chance() % 5000)};
    return machine_options_;
  }
  int any(int limit) { return static_cast<int>(chance_() % static_cast<unsigned>(limit)); }
  void step(const machine_event& event);
  void random_event();
  schemas::supervisor_message random_message();
  void see(const effect::spawn& what);
  void see(const effect::kill& what);
  void see(const effect::tell& what);
  void see(const effect::make_segment& what);
  void see(const effect::send_segment& what);
  void see(const effect::abort_segment&) { segment_ = false; }
  void see(const effect::stand_in& what) { stand_in_ = what.on; }
  void see(const effect::finish& what);
  template <class Other>
  void see(const Other&) {}
  void check_world() const;

  std::mt19937 chance_;
  machine_options machine_options_;
  supervisor_machine machine_;
  base::steady_time now_ = base::steady_time{} + std::chrono::hours(1);
  std::map<int, process> processes_;
  std::vector<machine_event> answers_;
  bool segment_ = false;
  bool stand_in_ = false;
  bool ending_ = false;
  int finishes_ = 0;
};

void world::see(const effect::spawn& what) {
  process& one = processes_[what.rank.value];
  ASSERT_FALSE(one.alive) << "a rank is started twice";
  ASSERT_FALSE(ending_) << "a rank is started at the end";
  if (any(20) == 0) {
    one = process{.failing = true};
    answers_.emplace_back(event::rank_not_started{what.rank, "no memory"});
    return;
  }
  one = process{.alive = true};
  ++spawns;
  answers_.emplace_back(event::rank_started{what.rank});
}

void world::see(const effect::kill& what) {
  process& one = processes_[what.rank.value];
  if (one.failing) return;
  ASSERT_TRUE(one.alive) << "a rank is killed that does not live";
  ASSERT_FALSE(one.killed) << "a rank is killed twice";
  one.killed = true;
}

void world::see(const effect::tell& what) {
  const process& one = processes_[what.rank.value];
  ASSERT_TRUE((one.alive && !one.killed) || one.failing) << "a rank is told that does not live";
  const auto* loss = std::get_if<schemas::rank_lost>(&what.message.body);
  if (loss == nullptr) return;
  ASSERT_FALSE(segment_) << "a loss is told before the segment is aborted";
  ASSERT_NE(loss->rank, what.rank) << "a rank is told of its own loss";
  const process& lost = processes_[loss->rank.value];
  ASSERT_TRUE(!lost.alive || lost.killed) << "a loss is told of a rank that lives";
}

void world::see(const effect::make_segment& what) {
  ASSERT_FALSE(segment_) << "the segment before was not aborted";
  segment_ = any(10) != 0;
  if (!segment_) {
    answers_.emplace_back(event::segment_not_made{what.epoch, "no memory"});
  } else {
    answers_.emplace_back(event::segment_made{what.epoch});
  }
}

void world::see(const effect::send_segment& what) {
  ASSERT_TRUE(segment_);
  ASSERT_TRUE(processes_[what.rank.value].alive);
}

void world::see(const effect::finish& what) {
  ++finishes_;
  ASSERT_GE(what.exit_code, 0);
  ASSERT_TRUE(what.exit_code == 0 || !what.cause.empty()) << "an end without a cause";
}

void world::step(const machine_event& event) {
  std::vector<machine_event> queue = {event};
  while (!queue.empty()) {
    const machine_event one = queue.front();
    ++events;
    queue.erase(queue.begin());
    const machine_effects effects = machine_.step(one, now_);
    for (const machine_effect& effect : effects) {
      std::visit([this](const auto& what) { see(what); }, effect);
      if (::testing::Test::HasFatalFailure()) return;
    }
    queue.insert(queue.end(), answers_.begin(), answers_.end());
    answers_.clear();
  }
  check_world();
}

void world::check_world() const {
  if (machine_.finished()) return;
  const auto first = processes_.find(0);
  const bool zero_runs = first != processes_.end() && first->second.alive && !first->second.killed;
  ASSERT_EQ(stand_in_, machine_options_.has_http && !zero_runs);
  const health_status health = machine_.health();
  ASSERT_EQ(health.ranks.size(), static_cast<std::size_t>(ranks));
  for (const rank_status& one : health.ranks) {
    const process& real = processes_.at(one.rank.value);
    ASSERT_EQ(one.running, real.alive && !real.killed);
    ASSERT_TRUE(!health.joined || one.running);
  }
  ASSERT_NE(health.joined, !health.why.empty());
}

schemas::supervisor_message world::random_message() {
  const base::epoch_id epoch{7, static_cast<std::uint64_t>(any(5))};
  switch (any(9)) {
    case 0:
      return {schemas::pong{static_cast<std::uint64_t>(any(20))}};
    case 1:
      return {schemas::control_plane_listens{"127.0.0.1", static_cast<std::uint16_t>(any(9))}};
    case 2:
    case 3:
      return {schemas::segment_wanted{epoch, any(8) == 0 ? any(9) : ranks}};
    case 4:
    case 5:
      return {schemas::phase_changed{static_cast<schemas::rank_phase>(any(7)), epoch, "detail"}};
    case 6:
      return {schemas::announce{any(2) == 0 ? "{}" : "no"}};
    case 7:
      if (any(100) == 0) return {schemas::give_up{any(6), "why"}};
      return {schemas::drain{5}};
    default:
      return {schemas::rank_lost{base::rank_id{any(5)}, "forged"}};
  }
}

void world::random_event() {
  const base::rank_id rank{any(ranks)};
  process& one = processes_[rank.value];
  switch (any(12)) {
    case 0:
      if (!one.alive) return;
      one.alive = false;
      step(event::rank_changed{rank, {base::child_change::what::killed, 9}});
      return;
    case 1:
      if (!one.alive || one.killed || any(3) != 0) return;
      one.alive = false;
      step(event::rank_changed{rank, {base::child_change::what::exited, any(90) / 2}});
      return;
    case 2:
      if (one.alive) step(event::rank_changed{rank, {base::child_change::what::stopped, 19}});
      return;
    case 3:
      if (any(200) == 0) step(event::signal_came{any(2) == 0 ? SIGTERM : SIGHUP});
      return;
    case 4:
      step(event::vitals_seen{rank, {.ticks = 1, .doing = 1}});
      return;
    case 5:
      if (any(30) == 0) step(event::rank_does_not_read{rank});
      return;
    case 6:
      step(event::rank_garbled{rank, "no message"});
      return;
    case 7:
      step(event::segment_made{{7, static_cast<std::uint64_t>(any(5))}});  // one of before
      return;
    case 8:
      now_ += milliseconds(any(40'000));
      return;
    default:
      if (one.alive) step(event::rank_said{rank, random_message()});
  }
}

void world::run() {
  step(event::begin{});
  for (int count = 0; count < events_a_seed && !machine_.finished(); ++count) {
    random_event();
    if (::testing::Test::HasFatalFailure()) return;
    ASSERT_LE(machine_.next_due(), now_ + supervisor_machine::tick_every + milliseconds(40'000));
    now_ = std::max(now_, std::min(machine_.next_due(), now_ + milliseconds(any(300))));
    if (now_ >= machine_.next_due()) step(event::timer{});
    if (::testing::Test::HasFatalFailure()) return;
  }
  // Asked twice to end, it ends, with its ranks or without them.
  for (int count = 0; count < 2 && !machine_.finished(); ++count) step(event::signal_came{SIGTERM});
  ending_ = true;
  for (auto& [rank, one] : processes_) {
    if (!one.alive || rank == 3) continue;  // one is stuck in the kernel
    ASSERT_TRUE(one.killed);
    one.alive = false;
    step(event::rank_changed{base::rank_id{rank}, {base::child_change::what::killed, 9}});
  }
  for (int count = 0; count < 200 && !machine_.finished(); ++count) {
    now_ = std::max(now_, machine_.next_due());
    step(event::timer{});
  }
  ASSERT_TRUE(machine_.finished());
  ASSERT_EQ(finishes_, 1);
  ASSERT_FALSE(segment_);
}

TEST(SupervisorMachineAtRandom, DoesWhatMakesSenseWhateverComes) {
  int events = 0;
  int spawns = 0;
  for (std::uint32_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    world one(seed);
    one.run();
    if (HasFatalFailure()) return;
    events += one.events;
    spawns += one.spawns;
  }
  std::printf("             %d events, %d processes\n", events, spawns);
  EXPECT_GT(events, 100 * seeds);
  EXPECT_GT(spawns, 6 * seeds);
}

}  // namespace
}  // namespace troupe::supervisor::test
