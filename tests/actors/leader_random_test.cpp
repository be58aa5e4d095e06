// Random event sequences: whatever comes in whatever order, each request ends exactly once, nobody
// is told anything after that, the engine's sequences and the machine's agree, and what goes on in
// another epoch goes on at the token that its client waits for.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "actors/leader/leader_machine.hpp"

namespace troupe::actors {
namespace {

// What the engine would hold, and what the clients have seen.
class leader_world {
 public:
  explicit leader_world(std::uint64_t seed) : random_(seed), machine_({}) {}

  void run(int events) {
    for (int i = 0; i < events; ++i) one_event();
    // Healed: a last epoch, and everything comes to its end.
    tell(leader_event::drain{});
    if (!epoch_lives_) begin_epoch();
    for (int i = 0; i < 200 && (stepping_ || !sequences_.empty()); ++i) step_engine(true);
    ASSERT_TRUE(open_.empty());
    ASSERT_EQ(drained_, 1);
  }

  [[nodiscard]] int carried() const { return carried_; }

 private:
  std::uint64_t draw(std::uint64_t below) { return random_() % below; }

  void one_event() {
    now_ += std::chrono::milliseconds(draw(3000));
    switch (draw(9)) {
      case 0:
        begin_epoch();
        return;
      case 1:
        if (draw(4) == 0) {
          tell(leader_event::epoch_ended{{1, draw(number_ + 2)}, "lost", some_sequences()});
        }
        return;
      case 2:
      case 3:
        submit();
        return;
      case 4:
        tell(leader_event::cancelled{base::request_id{1 + draw(next_request_)}});
        return;
      case 5:
        tell(leader_event::choice_satisfied{
            {base::request_id{1 + draw(next_request_)}, static_cast<std::uint32_t>(draw(4))}});
        return;
      case 6:
        tell(leader_event::woke{});
        return;
      default:
        step_engine(draw(4) == 0);
    }
  }

  // What the engine was computing.
  std::vector<choice_key> some_sequences() {
    std::vector<choice_key> some;
    for (const choice_key& key : sequences_) {
      if (draw(2) == 0) some.push_back(key);
    }
    return some;
  }

  void begin_epoch() {
    ++number_;
    sequences_.clear();
    stepping_ = false;
    epoch_lives_ = true;
    tell(leader_event::epoch_began{{1, number_}});
  }

  void submit() {
    completion_request request;
    request.prompt_ids = {1, 2};
    request.choices = 1 + static_cast<std::uint32_t>(draw(3));
    if (draw(2) == 0) request.patience = std::chrono::milliseconds(draw(20'000));
    const base::request_id id{next_request_++};
    open_.insert(id);
    for (std::uint32_t choice = 0; choice < request.choices; ++choice) seen_[{id, choice}] = {};
    tell(leader_event::submitted{id, std::move(request)});
  }

  void step_engine(bool finish) {
    if (!stepping_) return;
    stepping_ = false;
    if (!finish && draw(40) == 0) {
      tell(
          leader_event::step_failed{{base::error_code::aborted, "aborted", "t"}, some_sequences()});
      return;
    }
    leader_event::stepped event{.tokens = {}, .computed = !sequences_.empty()};
    std::vector<choice_key> gone;
    for (const choice_key& key : sequences_) {
      leader_event::stepped_token token;
      token.key = key;
      token.token.token_id = static_cast<std::int32_t>(draw(1000));
      if (finish || key.request == canary_request || draw(5) == 0) {
        token.finished = schemas::finish_reason::stop;
        gone.push_back(key);
      } else if (draw(50) == 0) {
        token.failed = base::error{base::error_code::internal, "not finite", "t"};
        gone.push_back(key);
      }
      event.tokens.push_back(std::move(token));
    }
    for (const choice_key& key : gone) sequences_.erase(key);
    tell(std::move(event));
  }

  void tell(leader_input event) {
    for (leader_output& effect : machine_.step(std::move(event), now_)) {
      std::visit([this](auto& kind) { check(kind); }, effect);
    }
  }

  void check(leader_effect::start& effect) {
    EXPECT_TRUE(sequences_.insert(effect.key).second);
    if (effect.key.request == canary_request) return;
    // It goes on where its client is, whatever was lost.
    EXPECT_EQ(effect.log.emitted_ids, seen_.at(effect.key));
    carried_ += seen_.at(effect.key).empty() ? 0 : 1;
  }
  void check(leader_effect::stop& effect) {
    sequences_.erase(effect.key);  // it may have ended in the very step that ended its request
  }
  void check(leader_effect::step&) {
    EXPECT_FALSE(stepping_);
    EXPECT_FALSE(sequences_.empty());
    stepping_ = true;
  }
  void check(leader_effect::tokens& effect) {
    EXPECT_TRUE(open_.contains(effect.id)) << "tokens after the end";
    EXPECT_FALSE(effect.tokens.empty());
    for (const choice_token& token : effect.tokens) {
      seen_.at({effect.id, token.choice}).push_back(token.token.token_id);
    }
  }
  void check(leader_effect::end& effect) {
    EXPECT_EQ(open_.erase(effect.id), 1U) << "ended twice, or never submitted";
  }
  void check(leader_effect::proved& effect) { EXPECT_EQ(effect.epoch.number, number_); }
  void check(leader_effect::failed&) {}
  void check(leader_effect::release& effect) {
    if (effect.epoch.number != number_) return;  // of the one before
    epoch_lives_ = false;
    stepping_ = false;
    sequences_.clear();
  }
  void check(leader_effect::drained&) { ++drained_; }
  void check(leader_effect::wake_at& effect) { EXPECT_LT(effect.when, time_point::max()); }

  std::mt19937_64 random_;
  leader_machine machine_;
  time_point now_{std::chrono::hours(1)};
  std::uint64_t number_ = 0;
  std::uint64_t next_request_ = 1;
  bool epoch_lives_ = false;
  bool stepping_ = false;
  std::set<choice_key> sequences_;
  std::set<base::request_id> open_;
  std::map<choice_key, std::vector<std::int32_t>> seen_;  // tokens that the clients have
  int carried_ = 0;
  int drained_ = 0;
};

TEST(LeaderMachine, EndsEveryRequestOnceInAnyOrderOfEvents) {
  int carried = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    leader_world world(seed);
    world.run(400);
    carried += world.carried();
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
  EXPECT_GT(carried, 1000) << "the events are such that answers go on in another epoch";
}

}  // namespace
}  // namespace troupe::actors
