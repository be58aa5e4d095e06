#include "tests/sim/world.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "tests/sim/effects.hpp"

namespace troupe::sim {

using namespace std::chrono_literals;

world::world(world_options options)
    : options_(std::move(options)), dice_(options_.seed), next_node_(options_.nodes) {
  current_.assign(static_cast<std::size_t>(options_.ranks), nullptr);
  // Any start order, the leader last in one of three.
  const bool leader_last = dice_.hits(0.33);
  for (int rank = 0; rank < options_.ranks; ++rank) {
    const int node = rank * options_.nodes / options_.ranks;
    const auto pause = rank == 0 && leader_last ? 30s : dice_.pause(0us, 3s);
    time_.after(pause, [this, rank, node] { start(rank, node); });
  }
  const auto look = std::make_shared<std::function<void()>>();
  *look = [this, again = std::weak_ptr(look)] {
    look_after_connections();
    look_after_nodes();
    if (const auto self = again.lock()) time_.after(100ms, [self] { (*self)(); });
  };
  time_.after(0ms, [look] { (*look)(); });
}

void world::say(const std::string& line) const {
  if (!options_.trace) return;
  const double seconds = std::chrono::duration<double>(time_.now().time_since_epoch() - 1h).count();
  std::fputs(fmt::format("{:10.4f} {}\n", seconds, line).c_str(), stdout);
}

void world::run_for(milliseconds how_long) { time_.run_until(time_.now() + how_long); }

// Whatever reaches a process waits while its node stands still, and is lost with the process.
void world::on(process& where, std::chrono::nanoseconds pause, schedule::action happens) {
  time_.after(pause, [this, &where, happens = std::move(happens)] {
    if (!where.alive) return;
    auto& held = held_[where.node];
    if (!stands_still(where.node) && held.empty()) {
      happens();
      return;
    }
    held.push_back([&where, happens] {
      if (where.alive) happens();
    });
  });
}

bool world::stands_still(int node) const {
  const auto paused = paused_until_.find(node);
  return paused != paused_until_.end() && paused->second > time_.now();
}

void world::pause_node(int node, milliseconds how_long) {
  say(fmt::format("node {} stands still for {} ms", node, how_long.count()));
  time_point& until = paused_until_[node];
  until = std::max(until, time_.now() + how_long);
  time_.at(until, [this, node] {
    if (stands_still(node)) return;
    // In their order, and before what comes now.
    for (auto& happens : std::exchange(held_[node], {})) happens();
  });
}

void world::step(process& where, const actors::worker::event& event) {
  if (where.worker->over()) return;
  for (const auto& effect : where.worker->step(event, time_.now())) {
    std::visit(worker_effects{*this, where}, effect);
  }
}

void world::step(process& where, const actors::gang::event& event) {
  for (const auto& effect : where.gang->step(event, time_.now())) {
    std::visit(gang_effects{*this, where}, effect);
  }
}

world_options options_of(std::uint64_t seed) {
  chance dice(seed ^ 0x5EEDU);
  world_options options{.seed = seed};
  options.ranks = dice.between(1, 8);
  options.nodes = dice.hits(0.3) ? 1 : dice.between(1, options.ranks);
  const std::vector<std::vector<std::string>> machines = {
      {"amx_bf16", "avx512", "avx2"}, {"avx512", "avx2"}, {"amx_bf16", "avx2"}, {"avx2"}};
  const bool mixed = dice.hits(0.3);
  for (int rank = 0; rank < options.ranks; ++rank) {
    options.paths.push_back(machines[mixed ? static_cast<std::size_t>(dice.between(0, 3)) : 0]);
  }
  return options;
}

}  // namespace troupe::sim
