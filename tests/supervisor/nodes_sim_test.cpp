// Supervisors of three nodes over a simulated network that delays, cuts and heals, on machines that
// pause, crash and come back: who is lost is told within a second, who is not never is, and when
// all is well again everybody is connected.
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/supervisor/machine_case.hpp"

namespace troupe::supervisor::test {
namespace {

constexpr int nodes = 3;  // one rank each
constexpr int seeds = 200;
constexpr int end_ms = 60'000;
constexpr int step_ms = 5;
constexpr int latency_max_ms = 40;
// 800 ms of silence, a message on its way, a look at the clock every step.
constexpr int noticed_ms = 800 + latency_max_ms + 2 * step_ms;

struct wire {
  std::uint64_t id = 0;  // at both ends
  int spoke = 0;
  struct packet {
    int due = 0;
    machine_event event;
  };
  std::array<std::deque<packet>, 2> to;     // [0]: to node 0, [1]: to the spoke
  std::array<bool, 2> open = {true, true};  // at node 0, at the spoke
};

class network {
 public:
  explicit network(std::uint32_t seed) : chance_(seed) {}
  void run();
  int noticed = 0;  // losses that were told in time

 private:
  struct node {
    std::unique_ptr<supervisor_machine> machine;  // none: crashed
    int back = 0;                                 // crashed or paused until then; 0: runs
    bool paused = false;
    int well_since = 0;                // ran and heard without a break since
    std::deque<machine_event> missed;  // came while it was paused
    std::map<int, int> lost_at;        // rank -> when it was told last
  };
  int any(int limit) { return static_cast<int>(chance_() % static_cast<unsigned>(limit)); }
  void boot(int at);
  void step(int at, const machine_event& event);
  void see(int at, const machine_effect& effect);
  void told_of_loss(int at, const schemas::rank_lost& loss);
  void send(int at, std::uint64_t id, machine_event event);
  void close(int at, std::uint64_t id);
  void deliver();
  void faults();
  void must_be_noticed();

  base::steady_time time() const {
    return base::steady_time{} + std::chrono::hours(1) + milliseconds(now_);
  }
  bool cut(int spoke) const { return cut_until_[static_cast<std::size_t>(spoke)] > now_; }

  std::mt19937 chance_;
  int now_ = 0;
  std::array<node, nodes> nodes_;
  std::array<int, nodes> cut_until_{};
  std::array<int, nodes> disturbed_{};  // the link's last trouble, by spoke
  std::vector<wire> wires_;
  std::uint64_t next_id_ = 1;
  struct dial {
    int due = 0;
    int spoke = 0;
    bool reaches = false;
  };
  std::vector<dial> dials_;
  struct promise {
    int due = 0;
    int observer = 0;
    int rank = 0;
    int since = 0;
  };
  std::vector<promise> promises_;
  bool quiet_ = false;  // no more faults
};

void network::boot(int at) {
  node& one = nodes_[static_cast<std::size_t>(at)];
  one = node{};
  one.machine = std::make_unique<supervisor_machine>(
      machine_options{.world_size = nodes, .node_rank = at, .nnodes = nodes, .build_id = "b"});
  one.well_since = now_;
  step(at, event::begin{});
  step(at, event::rank_started{base::rank_id{at}});
}

void network::step(int at, const machine_event& event) {
  node& one = nodes_[static_cast<std::size_t>(at)];
  if (one.machine == nullptr) return;
  for (const machine_effect& effect : one.machine->step(event, time())) see(at, effect);
}

void network::see(int at, const machine_effect& effect) {
  if (std::get_if<effect::dial>(&effect) != nullptr) {
    const bool reaches = !cut(at) && nodes_[0].machine != nullptr;
    dials_.push_back({now_ + (cut(at) ? 2000 : 1 + any(latency_max_ms)), at, reaches});
  } else if (const auto* told = std::get_if<effect::tell_peer>(&effect)) {
    send(at, told->connection.value, event::peer_said{told->connection, told->message});
  } else if (const auto* closed = std::get_if<effect::close_peer>(&effect)) {
    close(at, closed->connection.value);
  } else if (const auto* rank = std::get_if<effect::tell>(&effect)) {
    const auto* loss = std::get_if<schemas::rank_lost>(&rank->message.body);
    if (loss != nullptr) told_of_loss(at, *loss);
  }
}

// A false alarm: both ran and heard each other for long, and yet one is said to be lost.
void network::told_of_loss(int at, const schemas::rank_lost& loss) {
  const int other = loss.rank.value;
  node& one = nodes_[static_cast<std::size_t>(at)];
  one.lost_at[other] = now_;
  const int calm = now_ - 1000;
  const auto calm_link = [&](int spoke) {
    return spoke == 0 || disturbed_[static_cast<std::size_t>(spoke)] < calm;
  };
  const bool well = one.well_since < calm &&
                    nodes_[static_cast<std::size_t>(other)].well_since < calm &&
                    nodes_[0].well_since < calm && calm_link(at) && calm_link(other);
  ASSERT_FALSE(well) << "node " << at << " at " << now_ << " ms: " << loss.cause;
}

void network::send(int at, std::uint64_t id, machine_event event) {
  for (wire& one : wires_) {
    const std::size_t end = at == 0 ? 0 : 1;
    if (one.id != id || !one.open[end]) continue;
    auto& queue = one.to[1 - end];
    const int due = std::max(now_ + 1 + any(latency_max_ms), queue.empty() ? 0 : queue.back().due);
    queue.push_back({due, std::move(event)});
    return;
  }
}

void network::close(int at, std::uint64_t id) {
  send(at, id, event::peer_gone{connection_id{id}, "closed"});
  for (wire& one : wires_) {
    if (one.id == id) one.open[at == 0 ? 0 : 1] = false;
  }
}

void network::deliver() {
  const std::vector<dial> dials = std::exchange(dials_, {});
  for (const dial& one : dials) {
    if (one.due > now_) {
      dials_.push_back(one);
    } else if (one.reaches && nodes_[0].machine != nullptr) {
      wires_.push_back({.id = next_id_++, .spoke = one.spoke, .to = {}});
      step(one.spoke, event::peer_opened{connection_id{wires_.back().id}});
    } else {
      step(one.spoke, event::peer_not_reached{"refused"});
    }
  }
  for (std::size_t at = 0; at < wires_.size(); ++at) {
    if (cut(wires_[at].spoke)) continue;  // kept, as TCP sends it again after the cut
    for (const std::size_t end : {0U, 1U}) {
      const int to = end == 0 ? 0 : wires_[at].spoke;
      while (!wires_[at].to[end].empty() && wires_[at].to[end].front().due <= now_) {
        const machine_event event = wires_[at].to[end].front().event;
        wires_[at].to[end].pop_front();
        if (!wires_[at].open[end]) continue;
        if (std::get_if<event::peer_gone>(&event) != nullptr) wires_[at].open[end] = false;
        node& receiver = nodes_[static_cast<std::size_t>(to)];
        if (receiver.paused) {
          receiver.missed.push_back(event);
        } else {
          step(to, event);
        }
      }
    }
  }
  std::erase_if(wires_, [](const wire& one) {
    return !one.open[0] && !one.open[1] && one.to[0].empty() && one.to[1].empty();
  });
}

void network::faults() {
  for (int at = 0; at < nodes; ++at) {
    node& one = nodes_[static_cast<std::size_t>(at)];
    if (one.back == 0 || one.back > now_) continue;
    if (one.machine == nullptr) {
      boot(at);
      continue;
    }
    one.paused = false;
    one.back = 0;
    one.well_since = now_;
    while (!one.missed.empty()) {
      const machine_event event = one.missed.front();
      one.missed.pop_front();
      step(at, event);
    }
  }
  if (quiet_ || any(400) != 0) return;
  const int at = any(nodes);
  node& one = nodes_[static_cast<std::size_t>(at)];
  const int length = 100 + any(4000);
  const int fault = any(3);
  if (fault == 0 && at != 0 && !cut(at)) {
    cut_until_[static_cast<std::size_t>(at)] = now_ + length;
  } else if (fault == 1 && one.back == 0) {
    one.paused = true;
    one.back = now_ + length;
  } else if (fault == 2 && one.back == 0) {
    one.machine.reset();
    one.back = now_ + length;
    std::erase_if(dials_, [&](const dial& begun) { return begun.spoke == at; });
    for (wire& cord : wires_) {
      const std::size_t end = at == 0 ? 0 : 1;
      if (at != 0 && cord.spoke != at) continue;
      cord.to[1 - end].push_back(
          {now_ + 1 + latency_max_ms, event::peer_gone{connection_id{cord.id}, "closed"}});
      cord.open[end] = false;
    }
  } else {
    return;
  }
  // Who was connected and goes on undisturbed for long enough has to notice.
  for (const wire& cord : wires_) {
    if (at != 0 && cord.spoke != at) continue;
    const int observer = at == 0 ? cord.spoke : 0;
    const node& watcher = nodes_[static_cast<std::size_t>(observer)];
    const bool stood = cord.open[at == 0 ? 1 : 0] && now_ - watcher.well_since > 1500 &&
                       watcher.back == 0 &&
                       now_ - disturbed_[static_cast<std::size_t>(cord.spoke)] > 1500;
    if (stood && length > noticed_ms + 2 * latency_max_ms && (fault != 0 || observer == 0)) {
      promises_.push_back({now_ + noticed_ms + latency_max_ms, observer, at, now_});
    }
  }
}

void network::must_be_noticed() {
  std::erase_if(promises_, [&](const promise& one) {
    const node& watcher = nodes_[static_cast<std::size_t>(one.observer)];
    const bool watched =
        watcher.machine != nullptr && !watcher.paused && watcher.well_since <= one.since;
    const auto told = watcher.lost_at.find(one.rank);
    const bool done = told != watcher.lost_at.end() && told->second >= one.since;
    if (watched && done) ++noticed;
    if (!watched || done) return true;
    EXPECT_LT(now_, one.due) << "node " << one.observer << " has not noticed the loss of node "
                             << one.rank << " at " << one.since << " ms";
    return now_ >= one.due;
  });
}

void network::run() {
  for (int at = 0; at < nodes; ++at) boot(at);
  for (; now_ < end_ms; now_ += step_ms) {
    quiet_ = now_ > end_ms - 15'000;
    for (int spoke = 1; spoke < nodes; ++spoke) {
      if (cut(spoke) || nodes_[0].back != 0) disturbed_[static_cast<std::size_t>(spoke)] = now_;
      if (nodes_[static_cast<std::size_t>(spoke)].back != 0) {
        disturbed_[static_cast<std::size_t>(spoke)] = now_;
      }
    }
    faults();
    deliver();
    for (int at = 0; at < nodes; ++at) {
      const node& one = nodes_[static_cast<std::size_t>(at)];
      if (one.machine == nullptr || one.paused) continue;
      if (time() >= one.machine->next_due()) step(at, event::timer{});
    }
    must_be_noticed();
    if (::testing::Test::HasFailure()) return;
  }
  // Fifteen seconds without a fault: node 0 talks with all.
  for (int spoke = 1; spoke < nodes; ++spoke) {
    const auto& told = nodes_[static_cast<std::size_t>(spoke)].lost_at;
    for (const auto& [rank, when] : told) EXPECT_LT(when, end_ms - 8000) << rank;
  }
  int open = 0;
  for (const wire& one : wires_) open += one.open[0] && one.open[1] ? 1 : 0;
  EXPECT_EQ(open, nodes - 1);
}

TEST(NodesAtRandom, NoticeEveryLossInASecondAndNoneThatIsNone) {
  int noticed = 0;
  for (std::uint32_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    network one(seed);
    one.run();
    if (HasFailure()) return;
    noticed += one.noticed;
  }
  std::printf("             %d losses noticed in time\n", noticed);
  EXPECT_GT(noticed, 5 * seeds);
}

}  // namespace
}  // namespace troupe::supervisor::test
