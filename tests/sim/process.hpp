// What a simulated process holds: machines, its host's work under way, its end of a connection.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/gang/gang_machine.hpp"
#include "actors/worker/worker_machine.hpp"
#include "tests/sim/schedule.hpp"

namespace troupe::sim {

enum class plane_stage : std::uint8_t { none, opening, open, connecting, looping };

struct plane {
  base::epoch_id epoch;
  plane_stage stage = plane_stage::none;
  bool aborted = false;    // its completion is on its way
  std::uint64_t work = 0;  // counts what was begun, so that an old completion is known
  std::vector<std::uint8_t> address = {};
  std::vector<std::vector<std::uint8_t>> peers = {};
};

struct leading {
  base::epoch_id epoch;  // number 0: does not
  std::uint64_t step = 0;
  std::set<int> answered = {};
  bool proved = false;
};

struct process {
  int rank = 0;
  int node = 0;
  std::uint64_t life = 0;
  bool alive = true;
  std::optional<actors::worker_machine> worker;
  std::optional<actors::gang_machine> gang;  // rank 0
  int port = 0;                              // rank 0

  time_point last_told{};  // by its supervisor
  std::uint64_t worker_wakes = 0;
  std::uint64_t gang_wakes = 0;
  std::optional<actors::connection_id> line;
  std::uint64_t load = 0;
  std::string packed_path;
  plane at;
  leading leads;

  [[nodiscard]] std::string name() const {
    return "rank " + std::to_string(rank) + "." + std::to_string(life);
  }
};

// Both ends know of it for themselves.
struct connection {
  actors::connection_id id;
  process* worker = nullptr;
  process* leader = nullptr;
  std::uint64_t dial = 0;
  bool up_at_worker = true;
  bool up_at_leader = true;
  // Kept in order unless the weather is bad.
  time_point last_to_leader{};
  time_point last_to_worker{};
  std::optional<time_point> silent_to_leader = {}, silent_to_worker = {};
};

}  // namespace troupe::sim
