// A gang of real machines in a simulated world: processes that die and come back, hosts that load
// and connect, supervisors, and a network that drops, delays, repeats, reorders and parts.
//
// One thread, virtual time, one seed. What is simulated behaves as the interfaces promise and no
// better: worker_host's completions, connections that notice a silent peer after ten seconds,
// supervisors that notice a lost node after 800 ms.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/gang/gang_machine.hpp"
#include "actors/worker/worker_machine.hpp"
#include "tests/sim/auditor.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/schedule.hpp"

namespace troupe::sim {

struct world_options {
  std::uint64_t seed = 1;
  int ranks = 2;
  int nodes = 1;  // 1: the supervisor tells where the leader is, and there is a segment
  std::vector<std::vector<std::string>> paths = {};  // by rank
  bool trace = false;
};

// What the network and the hosts do wrong at the moment, as probabilities.
struct weather {
  double drop = 0;
  double repeat = 0;
  double late = 0;        // and so out of order
  double host_fails = 0;  // a load, an open, a connect
};

class world {
 public:
  explicit world(world_options options);

  // --- faults ---
  void kill(int rank);
  void kill_silently(int node);  // nobody is told: power is off
  void replace_leader();         // the old one lives on, cut off
  void break_connection(int rank, bool half_open);
  void block(int from_node, int to_node);  // one direction
  void unblock_all();
  void pause_node(int node, milliseconds how_long);
  void calm_down();  // no more faults; leaders that were replaced are gone
  weather sky;

  // --- time ---
  void run_for(milliseconds how_long);
  [[nodiscard]] time_point now() const { return time_.now(); }

  [[nodiscard]] const auditor& audit() const { return audit_; }
  [[nodiscard]] const world_options& options() const { return options_; }
  [[nodiscard]] process& leader() { return *current_[0]; }
  [[nodiscard]] process& rank(int rank) { return *current_[static_cast<std::size_t>(rank)]; }
  chance& dice() { return dice_; }
  void say(const std::string& line) const;  // the trace

 private:
  friend struct worker_effects;
  friend struct gang_effects;

  // supervisor.cpp
  void start(int rank, int node);
  void end(process& of, bool silently);
  void tell_lost(const process& lost, const std::string& cause, int observer_node);
  void tell_leader();
  void tell(process& child, schedule::action news);
  void look_after_nodes();
  [[nodiscard]] bool cut_off(int node, int from) const;

  // world.cpp
  void on(process& where, std::chrono::nanoseconds pause, schedule::action happens);
  [[nodiscard]] bool stands_still(int node) const;
  void step(process& where, const actors::worker::event& event);
  void step(process& where, const actors::gang::event& event);

  // network.cpp
  void dial(process& from, const actors::worker::dial& order);
  void hang_up(process& from);
  void send_to_leader(process& from, const schemas::control_message& message);
  void send_to_worker(actors::connection_id id, const schemas::control_message& message);
  void drop(actors::connection_id id);
  void close(connection& line, bool at_worker, std::chrono::nanoseconds pause,
             const std::string& why);
  void carry(connection& line, bool to_leader, const schemas::control_message& message);
  void deliver(connection& line, bool to_leader, const schemas::control_message& message);
  void look_after_connections();
  [[nodiscard]] bool flows(const process& from, const process& to) const;
  [[nodiscard]] process* listening(const std::string& host, int port);

  // host.cpp
  void load(process& where, const actors::worker::load& order);
  void open_plane(process& where, const actors::worker::open_plane& order);
  void connect_plane(process& where, const actors::worker::connect_plane& order);
  void try_connect(process& where, std::uint64_t work, time_point until);
  void start_loop(process& where, const actors::worker::start_loop& order);
  void abort_plane(process& where, const actors::worker::abort_plane& order);
  void want_segment(process& where, const actors::gang::want_segment& order);
  void serve(process& where, base::epoch_id epoch);
  void send_plan(process& where);
  void take_plan(process& where, process& leader, base::epoch_id epoch, std::uint64_t step);
  void take_result(process& leader, base::epoch_id epoch, std::uint64_t step, int rank);

  world_options options_;
  chance dice_;
  schedule time_;
  auditor audit_;
  std::vector<std::unique_ptr<process>> processes_;  // all that ever were
  std::vector<process*> current_;                    // by rank
  std::map<actors::connection_id, connection> connections_;
  std::uint64_t connections_made_ = 0;
  std::set<std::pair<int, int>> blocked_;  // from, to
  std::map<std::pair<int, int>, time_point> silent_since_;
  std::set<std::pair<int, int>> thought_lost_;  // observer, node
  std::map<int, time_point> paused_until_;
  std::map<int, std::vector<schedule::action>> held_;  // by a node that stands still
  int next_node_ = 0;                                  // for leaders that were replaced
  bool calm_ = false;
};

// The gang of that seed: sizes, paths, and a name for the log.
[[nodiscard]] world_options options_of(std::uint64_t seed);

}  // namespace troupe::sim
