// Both machines under random events: their own invariants are asserted in every step; what they
// promise their shells is checked here. A failing seed is in the trace.
#include <gtest/gtest.h>

#include <random>

#include "tests/actors/gang_driver.hpp"
#include "tests/actors/worker_driver.hpp"

namespace troupe::actors {
namespace {

constexpr int steps_per_seed = 2000;

class dice {
 public:
  explicit dice(std::uint64_t seed) : engine_(seed) {}
  int below(int bound) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(bound)); }
  bool one_in(int many) { return below(many) == 0; }
  base::epoch_id epoch() {
    return {.incarnation = one_in(10) ? 5U : incarnation,
            .number = static_cast<std::uint64_t>(below(6))};
  }
  std::string path() {
    return std::vector<std::string>{"amx_bf16", "avx512", "avx2",
                                    "neon"}[static_cast<std::size_t>(below(4))];
  }

  decltype(schemas::control_message::body) body() {
    switch (below(10)) {
      case 0:
        return description(below(4));
      case 1:
        return schemas::welcome{one_in(10) ? 5U : incarnation, path()};
      case 2:
        return schemas::refusal{"no"};
      case 3:
        return schemas::loading_progress{static_cast<std::uint64_t>(below(9)), 9};
      case 4:
        return schemas::loaded{{}, path()};
      case 5:
        return schemas::prepare{epoch()};
      case 6:
        return schemas::prepared{epoch(), {1}};
      case 7:
        return schemas::connect{epoch(), {{1}, {2}}};
      case 8:
        return schemas::connected{epoch()};
      default:
        return schemas::epoch_ended{epoch(), "over"};
    }
  }

 private:
  std::mt19937_64 engine_;
};

// The host of a worker, as it promises to be: one completion for what was begun.
class host_model {
 public:
  void watch(const std::vector<worker::effect>& effects) {
    for (const worker::effect& effect : effects) {
      if (const auto* open = std::get_if<worker::open_plane>(&effect)) {
        begin(open->epoch, &host_model::opened_);
      } else if (const auto* connect = std::get_if<worker::connect_plane>(&effect)) {
        EXPECT_TRUE(opened_ == connect->epoch);
        begin(connect->epoch, &host_model::connected_);
      } else if (const auto* loop = std::get_if<worker::start_loop>(&effect)) {
        EXPECT_TRUE(connected_ == loop->epoch);
        begin(loop->epoch, nullptr);
      } else if (const auto* send = std::get_if<worker::send>(&effect)) {
        EXPECT_EQ(send->message.sequence, ++sequence_);
      } else if (std::holds_alternative<worker::dial>(effect)) {
        sequence_ = 0;
      } else if (std::holds_alternative<worker::abort_plane>(effect)) {
        opened_ = connected_ = {};
      }
    }
  }
  [[nodiscard]] std::optional<worker::event> completion(dice& chance) {
    if (!busy_) return std::nullopt;
    const base::epoch_id epoch = *busy_;
    base::epoch_id host_model::*const reached = reached_;
    busy_.reset();
    if (reached == nullptr) return worker::loop_ended{epoch, "over"};
    if (chance.one_in(4)) return worker::plane_failed{epoch, "no"};
    this->*reached = epoch;
    if (reached == &host_model::opened_) return worker::plane_opened{epoch, {1}};
    return worker::plane_connected{epoch};
  }

 private:
  void begin(base::epoch_id epoch, base::epoch_id host_model::*reaches) {
    EXPECT_FALSE(busy_.has_value()) << "the host is busy";
    busy_ = epoch;
    reached_ = reaches;
  }

  std::optional<base::epoch_id> busy_;
  base::epoch_id host_model::*reached_ = nullptr;
  base::epoch_id opened_, connected_;
  std::uint64_t sequence_ = 0;
};

worker::event random_event(dice& chance, const worker_driver& rank) {
  const auto dial = rank.last_dial - static_cast<std::uint64_t>(chance.one_in(10) ? 1 : 0);
  const auto load = rank.last_load - static_cast<std::uint64_t>(chance.one_in(10) ? 1 : 0);
  switch (chance.below(24)) {
    case 0:
      return worker::leader_at{"leader", static_cast<std::uint16_t>(chance.below(2))};
    case 1:
      if (chance.one_in(4)) return worker::leader_unknown{};
      return worker::timer{};
    case 2:
      if (chance.one_in(4)) return worker::control_down{dial, "down"};
      return worker::timer{};
    case 3:
    case 4:
      return worker::control_up{dial};
    case 5:
      return worker::weights_loaded{load, {}};
    case 6:
      return worker::load_progress{load, 1, 2};
    case 7:
      return worker::load_failed{load,
                                 {.code = base::error_code::unavailable,
                                  .message = "later",
                                  .origin = "test",
                                  .retryable = true}};
    case 8:
      if (chance.one_in(4)) return worker::rank_lost{{0}, "gone", 0};
      return worker::timer{};
    case 9:
      return worker::timer{};
    default:
      return worker::received{dial,
                              {.sender = {chance.one_in(20) ? 1 : 0},
                               .sequence = rank.heard + static_cast<std::uint64_t>(chance.below(3)),
                               .body = chance.body()}};
  }
}

// What a leader that means well would do next.
worker::event helpful_event(const worker_driver& rank, std::uint64_t* epochs) {
  const auto hears = [&rank](auto body) {
    return worker::received{rank.last_dial,
                            {.sender = {0}, .sequence = rank.heard + 1, .body = std::move(body)}};
  };
  switch (rank.machine.link()) {
    case worker_link::seeking:
      return worker::leader_at{"leader", 0};
    case worker_link::dialing:
      return worker::control_up{rank.last_dial};
    case worker_link::joining:
    case worker_link::refused:
      return hears(schemas::welcome{incarnation, "amx_bf16"});
    case worker_link::welcomed:
      break;
  }
  if (rank.machine.weights() == worker_weights::loading) {
    return worker::weights_loaded{rank.last_load, {}};
  }
  if (rank.machine.place() == worker_place::out) return hears(schemas::prepare{epoch(++*epochs)});
  if (rank.machine.place() == worker_place::opened) {
    return hears(schemas::connect{rank.machine.epoch(), {{1}, {2}}});
  }
  return worker::timer{};
}

TEST(MachineRandom, AWorkerKeepsItsPromisesToItsShell) {
  int epochs = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    dice chance(seed);
    worker_driver rank;
    host_model host;
    std::uint64_t numbers = 0;
    host.watch(rank.to_started().effects);
    for (int step = 0; step < steps_per_seed && !rank.machine.over(); ++step) {
      const auto completion = chance.one_in(3) ? host.completion(chance) : std::nullopt;
      const worker::event event = completion             ? *completion
                                  : chance.below(3) != 0 ? helpful_event(rank, &numbers)
                                                         : random_event(chance, rank);
      if (std::holds_alternative<worker::received>(event)) ++rank.heard;
      rank.now += milliseconds(chance.below(200));
      host.watch(rank.feed(event).effects);
      epochs += count_of<worker::start_loop>(rank.effects);
      ASSERT_EQ(count_of<worker::give_up>(rank.effects), rank.machine.over() ? 1 : 0);
    }
  }
  EXPECT_GT(epochs, 100);  // the events reach far enough
}

// What the shell of a gang relies on.
class gang_watch {
 public:
  void watch(gang_driver& gang) {
    for (const gang::effect& effect : std::exchange(gang.effects, {})) {
      if (const auto* send = std::get_if<gang::send>(&effect)) {
        EXPECT_EQ(send->message.sequence, ++sequences_[send->connection]);
      } else if (const auto* drop = std::get_if<gang::drop>(&effect)) {
        forget(drop->connection);
        gang.spoken.erase(drop->connection);
      } else if (const auto* serve = std::get_if<gang::serve>(&effect)) {
        EXPECT_FALSE(serving_);
        serving_ = serve->epoch;
        ++serves;
      } else if (const auto* stop = std::get_if<gang::stop_serving>(&effect)) {
        EXPECT_TRUE(serving_ == stop->epoch);
        serving_.reset();
      }
    }
    if (gang.machine.phase() == gang_phase::serving) {
      EXPECT_TRUE(serving_ == gang.machine.epoch());
    }
  }
  void forget(connection_id line) { sequences_.erase(line); }

  int serves = 0;

 private:
  std::map<connection_id, std::uint64_t> sequences_;
  std::optional<base::epoch_id> serving_;
};

// Most of what is said is what a well-behaved rank would say, so that epochs come about.
void random_rank_speaks(dice& chance, gang_driver& gang, base::epoch_id at) {
  const int rank = chance.below(2);
  const rank_state state = gang.rank(rank).state;
  switch (chance.below(5)) {
    case 0:
      if (state == rank_state::absent) gang.join(rank);
      break;
    case 1:
      if (state == rank_state::loading || chance.one_in(10)) gang.load(rank);
      break;
    case 2:
      gang.hear(rank, schemas::prepared{at, {1}});
      break;
    case 3:
      gang.hear(rank, schemas::connected{at});
      break;
    default:
      if (gang.machine.phase() == gang_phase::gathering) gang.load(rank);
      break;
  }
}

void random_gang_event(dice& chance, gang_driver& gang, gang_watch& watch) {
  const base::epoch_id at = chance.one_in(5) ? chance.epoch() : gang.machine.epoch();
  const int rank = chance.below(3);
  const connection_id line{static_cast<std::uint64_t>(chance.one_in(10) ? 7 : rank + 1)};
  switch (chance.below(60)) {
    case 0:
      gang.feed(gang::connection_down{line, "down"});
      watch.forget(line);
      break;
    case 1:
      gang.feed(gang::rank_lost{{rank}, "killed", 1});
      break;
    case 2:
      gang.feed(gang::epoch_failed{at, "broken"});
      break;
    case 3:
      std::visit([&](auto body) { gang.hear_on(line, rank, body); }, chance.body());
      break;
    default:
      if (chance.one_in(5)) {
        gang.feed(gang::timer{});
      } else if (chance.one_in(4)) {
        gang.feed(gang::segment_ready{at});
      } else if (chance.one_in(4)) {
        gang.feed(gang::canary_done{at});
      } else {
        random_rank_speaks(chance, gang, at);
      }
  }
}

TEST(MachineRandom, AGangKeepsItsPromisesToItsShell) {
  int serves = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    dice chance(seed);
    gang_driver gang({.world = 2, .wants_segment = chance.one_in(2)});
    gang_watch watch;
    for (int step = 0; step < steps_per_seed && gang.machine.phase() != gang_phase::over; ++step) {
      gang.now += milliseconds(chance.below(100));
      random_gang_event(chance, gang, watch);
      watch.watch(gang);
      ASSERT_FALSE(HasFailure()) << "step " << step;
    }
    serves += watch.serves;
  }
  EXPECT_GT(serves, 100);  // the events reach far enough
}

}  // namespace
}  // namespace troupe::actors
