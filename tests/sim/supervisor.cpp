// Supervisors: they start ranks, notice those that are lost, and tell the others.
#include <fmt/format.h>

#include "tests/sim/world.hpp"

namespace troupe::sim {

using namespace std::chrono_literals;

namespace {

// A supervisor hears of a child within milliseconds, of a silent node after this long.
constexpr milliseconds node_silence_max = 800ms;

schemas::join_request description(const world_options& options, int rank) {
  return {.protocol = 1,
          .build_id = "build",
          .rank = {rank},
          .node = fmt::format("node-{}", rank * options.nodes / options.ranks),
          .layout = {},
          .model_description_digest = {},
          .instruction_paths = options.paths[static_cast<std::size_t>(rank)],
          .kernel_version = 1};
}

}  // namespace

void world::start(int rank, int node) {
  processes_.push_back(std::make_unique<process>());
  process& made = *processes_.back();
  made.rank = rank;
  made.node = node;
  made.life = processes_.size();
  made.worker.emplace(actors::worker_options{.self = description(options_, rank),
                                             .world_size = options_.ranks,
                                             .jitter_seed = dice_.next()});
  current_[static_cast<std::size_t>(rank)] = &made;
  say(made.name() + " starts");
  step(made, actors::worker::started{});
  if (rank == 0) {
    made.port = options_.nodes == 1 ? static_cast<int>(30000 + made.life) : 8472;
    made.gang.emplace(actors::gang_options{
        .rules = {.leader = description(options_, 0), .world_size = options_.ranks},
        .incarnation = dice_.next() | 1U,
        .wants_segment = options_.nodes == 1,
        .jitter_seed = dice_.next()});
    step(made, actors::gang::started{});
  }
  if (options_.nodes == 1) {
    tell_leader();
  } else {  // the name of the leader, once it resolves
    on(made, dice_.pause(1ms, 2s), [this, &made] {
      step(made, actors::worker::leader_at{"leader", 8472});
    });
  }
}

// Over the socket pair, which keeps the order.
void world::tell(process& child, schedule::action news) {
  child.last_told = std::max(child.last_told, time_.now() + dice_.pause(50us, 10ms));
  on(child, child.last_told - time_.now(), std::move(news));
}

// On one host the supervisor says where the leader listens, or that it does not.
void world::tell_leader() {
  const process* leader = current_[0];
  for (process* each : current_) {
    if (each == nullptr || !each->alive) continue;
    if (leader != nullptr && leader->alive) {
      tell(*each, [this, each, port = leader->port] {
        step(*each, actors::worker::leader_at{"127.0.0.1", static_cast<std::uint16_t>(port)});
      });
    } else {
      tell(*each, [this, each] { step(*each, actors::worker::leader_unknown{}); });
    }
  }
}

void world::end(process& of, bool silently) {
  if (!of.alive) return;
  say(of.name() + " ends");
  of.alive = false;
  of.leads = {};
  of.at = {};
  if (silently) return;
  for (auto& [id, line] : connections_) {
    if (line.worker == &of) close(line, false, dice_.pause(100us, 3ms), "reset");
    if (line.leader == &of) close(line, true, dice_.pause(100us, 3ms), "reset");
  }
}

void world::kill(int rank) {
  process* victim = current_[static_cast<std::size_t>(rank)];
  if (victim == nullptr || !victim->alive) return;
  const int node = victim->node;
  end(*victim, false);
  time_.after(dice_.pause(1ms, 20ms), [this, victim, rank, node] {
    for (int observer = 0; observer < options_.nodes; ++observer) {
      if (!cut_off(observer, node)) tell_lost(*victim, "killed by signal 9", observer);
    }
    if (rank == 0 && options_.nodes == 1) tell_leader();
    time_.after(dice_.pause(5ms, 600ms), [this, victim, rank, node] {
      if (current_[static_cast<std::size_t>(rank)] == victim) start(rank, node);
    });
  });
}

void world::kill_silently(int node) {
  say(fmt::format("node {} loses its power", node));
  for (int rank = 0; rank < options_.ranks; ++rank) {
    process* victim = current_[static_cast<std::size_t>(rank)];
    if (victim == nullptr || !victim->alive || victim->node != node) continue;
    end(*victim, true);
    time_.after(dice_.pause(2s, 20s), [this, victim, rank, node] {
      if (current_[static_cast<std::size_t>(rank)] == victim) start(rank, node);
    });
  }
}

void world::replace_leader() {
  process* old = current_[0];
  if (options_.nodes == 1 || old == nullptr || !old->alive) return;
  // It lives on where nobody hears it, and believes what it believed.
  const int node = old->node;
  old->node = next_node_++;
  for (int other = 0; other < next_node_; ++other) {
    if (other == old->node) continue;
    block(old->node, other);
    block(other, old->node);
  }
  say(old->name() + " is cut off and replaced");
  for (int observer = 0; observer < options_.nodes; ++observer) {
    time_.after(node_silence_max,
                [this, old, observer] { tell_lost(*old, "no heartbeat", observer); });
  }
  time_.after(dice_.pause(10ms, 5s), [this, old, node] {
    if (current_[0] != old) return;
    if (calm_) end(*old, false);
    start(0, node);
  });
}

void world::calm_down() {
  sky = {};
  calm_ = true;
  unblock_all();
  for (const auto& each : processes_) {
    if (current_[static_cast<std::size_t>(each->rank)] != each.get()) end(*each, false);
  }
}

void world::tell_lost(const process& lost, const std::string& cause, int observer_node) {
  const schemas::rank_lost news{.rank = {lost.rank}, .cause = cause, .restarts = 1};
  for (process* each : current_) {
    if (each == nullptr || each == &lost || !each->alive || each->node != observer_node) continue;
    tell(*each, [this, each, news] {
      step(*each, actors::worker::event(news));
      if (each->gang) step(*each, actors::gang::event(news));
    });
  }
}

// Whether nothing gets from `from` to `node`: the network is parted, or it stands still.
bool world::cut_off(int node, int from) const {
  if (node == from) return false;
  return blocked_.contains({from, node}) || stands_still(from);
}

void world::look_after_nodes() {
  for (int observer = 0; observer < options_.nodes; ++observer) {
    const bool stands = stands_still(observer);
    for (int node = 0; node < options_.nodes; ++node) {
      bool powered = false;
      for (const process* each : current_) powered |= each && each->alive && each->node == node;
      const std::pair<int, int> pair{observer, node};
      // An observer that stood still begins to count anew.
      if (stands || (powered && !cut_off(observer, node)) || node == observer) {
        silent_since_.erase(pair);
        thought_lost_.erase(pair);
        continue;
      }
      const time_point since = silent_since_.try_emplace(pair, time_.now()).first->second;
      if (time_.now() - since < node_silence_max || !thought_lost_.insert(pair).second) continue;
      for (const process* each : current_) {
        if (each != nullptr && each->node == node) tell_lost(*each, "no heartbeat", observer);
      }
    }
  }
}

void world::block(int from_node, int to_node) { blocked_.insert({from_node, to_node}); }

void world::unblock_all() {
  if (!blocked_.empty()) say("the network is whole");
  blocked_.clear();
}

}  // namespace troupe::sim
