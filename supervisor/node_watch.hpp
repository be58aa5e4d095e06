// The other nodes of a gang as one supervisor sees them: who is there, who is lost, what is passed
// on. Node 0 is the hub that all others dial. Part of supervisor_machine: no clock, no I/O.
//
//   dialling side   away --dial--> opened --heartbeat--> up --silence or close--> away
//   node 0                 (a stranger's connection) --heartbeat--> up --silence or close--> away
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "supervisor/events.hpp"

namespace troupe::supervisor {

struct node_watch_options {
  int node_rank = 0;
  int nnodes = 1;
  int world_size = 1;
  std::string build_id;
};

class node_watch {
 public:
  static constexpr std::chrono::milliseconds lost_after{800};
  static constexpr std::chrono::milliseconds dial_delay_min{100};
  static constexpr std::chrono::milliseconds dial_delay_max{2'000};

  // What is lost for the ranks of this node; other nodes have been told in the effects.
  using losses = std::vector<schemas::rank_lost>;

  explicit node_watch(node_watch_options options) : options_(std::move(options)) {}

  // Every 100 ms: a heartbeat to every node that is up.
  void beat(machine_effects& effects);
  // This process did not run for a while: the silence was its own.
  void restart_windows(base::steady_time now);
  // Silent nodes are lost, and node 0 is dialled when it is time.
  [[nodiscard]] losses check(base::steady_time now, machine_effects& effects);
  [[nodiscard]] std::optional<base::steady_time> next_due() const;

  void opened(connection_id connection, machine_effects& effects);
  void not_reached(const std::string& why, base::steady_time now, machine_effects& effects);
  [[nodiscard]] losses said(connection_id connection, const schemas::supervisor_message& message,
                            base::steady_time now, machine_effects& effects);
  [[nodiscard]] losses gone(connection_id connection, const std::string& why, base::steady_time now,
                            machine_effects& effects);

  void refused_stranger(const std::string& why, machine_effects& effects);

  void tell_all(const schemas::rank_lost& loss, machine_effects& effects) const;
  [[nodiscard]] bool leader_is_up() const { return peers_.contains(0); }
  [[nodiscard]] int first_rank_of(int node) const;
  [[nodiscard]] bool is_of(base::rank_id rank, int node) const;

 private:
  struct peer {
    connection_id connection;
    base::steady_time heard;
  };
  using peer_at = std::map<int, peer>::iterator;

  [[nodiscard]] bool dials() const { return options_.node_rank != 0; }
  [[nodiscard]] schemas::supervisor_message own_heartbeat();
  [[nodiscard]] std::optional<std::string> difference(const schemas::heartbeat& theirs) const;
  void introduce(connection_id connection, const schemas::heartbeat& theirs, base::steady_time now,
                 machine_effects& effects);
  [[nodiscard]] losses lose(peer_at lost, const std::string& why, base::steady_time now,
                            machine_effects& effects);
  [[nodiscard]] losses pass_on(int from, const schemas::rank_lost& loss,
                               machine_effects& effects) const;
  void dial_later(base::steady_time now);
  void complain(const std::string& line, machine_effects& effects);

  node_watch_options options_;
  std::map<int, peer> peers_;            // by node, those that are up
  std::optional<connection_id> opened_;  // dialling side: not introduced yet
  std::optional<base::steady_time> dial_due_ = base::steady_time{};
  std::chrono::milliseconds dial_delay_ = dial_delay_min;
  std::uint64_t beats_ = 0;
  std::string last_complaint_;  // the same line is not written twice
};

}  // namespace troupe::supervisor
