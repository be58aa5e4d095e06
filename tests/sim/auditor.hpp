// What must hold in every run, whatever the faults. Notes violations; the test asserts none.
//
//  1. A loop is started in an epoch at most once per process, in ascending numbers, and only while
//     its process is in no other epoch.
//  2. An epoch is served at most once, by the leader of its incarnation, after every rank has
//     started its loop in it, all packed for the same instruction path; serve and stop alternate.
//  3. A plan is accepted only by a rank whose machine is in the plan's epoch.
//  4. Of all epochs at most one gets steps done: once another has one done, the old one never
//  again.
//  5. Nobody gives up: the faults are shorter than the patience.
#pragma once

#include <fmt/format.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/process.hpp"

namespace troupe::sim {

class auditor {
 public:
  void loop_started(const process& who, base::epoch_id epoch) {
    expect(who.at.stage == plane_stage::connecting && who.at.epoch == epoch && !who.at.aborted, who,
           "starts a loop without a plane");
    const std::uint64_t before = last_loop_[{who.rank, who.life, epoch.incarnation}];
    expect(epoch.number > before, who, "starts a loop in an epoch that it was in or has passed");
    last_loop_[{who.rank, who.life, epoch.incarnation}] = epoch.number;
    members_[epoch][who.rank] = who.packed_path;
  }

  void served(const process& leader, base::epoch_id epoch, int ranks) {
    expect(serving_.try_emplace(leader.life, epoch).second, leader, "serves two epochs");
    expect(ever_served_.insert(epoch).second, leader, "serves an epoch again");
    const auto& members = members_[epoch];
    expect(static_cast<int>(members.size()) == ranks, leader, "serves without all ranks");
    for (const auto& [rank, path] : members) {
      expect(path == leader.gang->view().instruction_path, leader, "serves mixed paths");
    }
  }
  void stopped(const process& leader, base::epoch_id epoch) {
    const auto found = serving_.find(leader.life);
    expect(found != serving_.end() && found->second == epoch, leader, "stops what it does not");
    if (found != serving_.end()) serving_.erase(found);
    ++epochs_ended_;
  }

  void accepted(const process& who, base::epoch_id epoch) {
    expect(who.worker->epoch() == epoch && who.worker->place() == actors::worker_place::serving,
           who, "accepts a plan of an epoch that it is not in");
  }
  void stale_plan() { ++stale_plans_; }

  void step_done(const process& leader, base::epoch_id epoch, time_point when) {
    if (!(epoch == answering_)) {
      expect(!answered_before_.contains(epoch), leader, "answers in an epoch that is over");
      answered_before_.insert(answering_);
      answering_ = epoch;
      answering_since_ = when;
    }
    last_step_ = when;
    ++steps_;
  }

  void gave_up(const process& who, const std::string& reason) {
    expect(false, who, "gives up: " + reason);
  }
  void expect(bool holds, const process& who, const std::string& what) {
    if (!holds) violations_.push_back(fmt::format("{} {}", who.name(), what));
  }

  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  [[nodiscard]] std::uint64_t steps() const { return steps_; }
  [[nodiscard]] std::uint64_t stale_plans() const { return stale_plans_; }
  [[nodiscard]] std::uint64_t epochs_ended() const { return epochs_ended_; }
  [[nodiscard]] time_point last_step() const { return last_step_; }
  [[nodiscard]] base::epoch_id answering() const { return answering_; }
  [[nodiscard]] time_point answering_since() const { return answering_since_; }

 private:
  struct looper {
    int rank = 0;
    std::uint64_t life = 0;
    std::uint64_t incarnation = 0;
    auto operator<=>(const looper&) const = default;
  };
  std::map<looper, std::uint64_t> last_loop_;
  std::map<base::epoch_id, std::map<int, std::string>> members_;
  std::map<std::uint64_t, base::epoch_id> serving_;  // by the leader's life
  std::set<base::epoch_id> ever_served_;
  std::set<base::epoch_id> answered_before_;
  base::epoch_id answering_;
  time_point answering_since_{};
  time_point last_step_{};
  std::uint64_t steps_ = 0;
  std::uint64_t stale_plans_ = 0;
  std::uint64_t epochs_ended_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace troupe::sim
