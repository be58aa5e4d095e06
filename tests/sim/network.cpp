// Connections between workers and their leader, as the control plane gives them.
#include <fmt/format.h>

#include "tests/sim/world.hpp"

namespace troupe::sim {

using namespace std::chrono_literals;

namespace {

constexpr milliseconds silence_max = 10s;
constexpr milliseconds dial_patience = 5s;

}  // namespace

bool world::flows(const process& from, const process& to) const {
  return from.node == to.node || !blocked_.contains({from.node, to.node});
}

process* world::listening(const std::string& host, int port) {
  process* leader = current_[0];
  if (leader == nullptr || !leader->alive) return nullptr;
  return host == "leader" || leader->port == port ? leader : nullptr;
}

void world::dial(process& from, const actors::worker::dial& order) {
  hang_up(from);
  const auto fails = [this, &from, dial = order.dial](milliseconds pause, const char* why) {
    on(from, pause, [this, &from, dial, why] {
      step(from, actors::worker::control_down{dial, why});
    });
  };
  on(from, dice_.pause(1ms, 30ms), [this, &from, order, fails] {
    process* leader = listening(order.host, order.port);
    if (leader == nullptr) {
      fails(1ms, "connection refused");
      return;
    }
    if (!flows(from, *leader) || !flows(*leader, from) || stands_still(leader->node) ||
        dice_.hits(sky.drop)) {
      fails(dial_patience, "no answer");
      return;
    }
    const actors::connection_id id{++connections_made_};
    connections_.emplace(
        id, connection{.id = id, .worker = &from, .leader = leader, .dial = order.dial});
    from.line = id;
    step(from, actors::worker::control_up{order.dial});
  });
}

void world::hang_up(process& from) {
  if (!from.line) return;
  connection& line = connections_.at(*from.line);
  from.line.reset();
  line.up_at_worker = false;
  close(line, false, dice_.pause(100us, 3ms), "closed");
}

void world::drop(actors::connection_id id) {
  connection& line = connections_.at(id);
  line.up_at_leader = false;
  close(line, true, dice_.pause(100us, 3ms), "the leader has hung up");
}

// One end learns that the other is gone, as soon as that can reach it.
void world::close(connection& line, bool at_worker, std::chrono::nanoseconds pause,
                  const std::string& why) {
  process& end = at_worker ? *line.worker : *line.leader;
  on(end, pause, [this, &line, at_worker, why] {
    bool& up = at_worker ? line.up_at_worker : line.up_at_leader;
    if (!up) return;
    const bool passes =
        at_worker ? flows(*line.leader, *line.worker) : flows(*line.worker, *line.leader);
    if (!passes) {
      close(line, at_worker, 200ms, why);
      return;
    }
    up = false;
    if (at_worker) {
      step(*line.worker, actors::worker::control_down{line.dial, why});
    } else {
      step(*line.leader, actors::gang::connection_down{line.id, why});
    }
  });
}

void world::send_to_leader(process& from, const schemas::control_message& message) {
  if (from.line) carry(connections_.at(*from.line), true, message);
}

void world::send_to_worker(actors::connection_id id, const schemas::control_message& message) {
  carry(connections_.at(id), false, message);
}

void world::carry(connection& line, bool to_leader, const schemas::control_message& message) {
  const int copies = dice_.hits(sky.drop) ? 0 : dice_.hits(sky.repeat) ? 2 : 1;
  for (int copy = 0; copy < copies; ++copy) {
    time_point& last = to_leader ? line.last_to_leader : line.last_to_worker;
    time_point when = time_.now() + dice_.pause(50us, 2ms);
    if (dice_.hits(sky.late)) {
      when += dice_.pause(1ms, 3s);
    } else {
      when = last = std::max(when, last);
    }
    process& end = to_leader ? *line.leader : *line.worker;
    on(end, when - time_.now(),
       [this, &line, to_leader, message] { deliver(line, to_leader, message); });
  }
}

// What cannot pass waits, as TCP would send it again, until the connection is given up.
void world::deliver(connection& line, bool to_leader, const schemas::control_message& message) {
  const bool up = to_leader ? line.up_at_leader : line.up_at_worker;
  if (!up) return;
  const process& from = to_leader ? *line.worker : *line.leader;
  process& to = to_leader ? *line.leader : *line.worker;
  if (!flows(from, to)) {
    on(to, 200ms, [this, &line, to_leader, message] { deliver(line, to_leader, message); });
  } else if (to_leader) {
    step(to, actors::gang::received{line.id, message});
  } else {
    step(to, actors::worker::received{line.dial, message});
  }
}

void world::break_connection(int rank, bool half_open) {
  process* from = current_[static_cast<std::size_t>(rank)];
  if (from == nullptr || !from->alive || !from->line) return;
  connection& line = connections_.at(*from->line);
  say(fmt::format("{}: its connection breaks{}", from->name(), half_open ? " at its end" : ""));
  close(line, true, 0ms, "reset");
  if (!half_open) close(line, false, 0ms, "reset");
}

// Each end gives a connection up on which it has heard nothing for long.
void world::look_after_connections() {
  const auto look = [this](connection& line, bool at_worker) {
    bool& up = at_worker ? line.up_at_worker : line.up_at_leader;
    const process& peer = at_worker ? *line.leader : *line.worker;
    process& self = at_worker ? *line.worker : *line.leader;
    auto& since = at_worker ? line.silent_to_worker : line.silent_to_leader;
    const bool peer_up = at_worker ? line.up_at_leader : line.up_at_worker;
    const bool silent = !peer.alive || !peer_up || !flows(peer, self) || stands_still(peer.node);
    if (!up || !silent || !self.alive) {
      since.reset();
      return;
    }
    if (!since) since = time_.now();
    if (time_.now() - *since < silence_max) return;
    // Its own timer tells it: no need that anything passes.
    on(self, 0ms, [this, &line, at_worker] {
      bool& still_up = at_worker ? line.up_at_worker : line.up_at_leader;
      if (!still_up) return;
      still_up = false;
      if (at_worker) {
        step(*line.worker, actors::worker::control_down{line.dial, "silent"});
      } else {
        step(*line.leader, actors::gang::connection_down{line.id, "silent"});
      }
    });
  };
  for (auto& [id, line] : connections_) {
    look(line, true);
    look(line, false);
  }
}

}  // namespace troupe::sim
