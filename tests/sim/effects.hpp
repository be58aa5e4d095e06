// What the machines' effects do in a simulated world.
#pragma once

#include "tests/sim/world.hpp"

namespace troupe::sim {

struct worker_effects {
  world& around;
  process& where;

  void operator()(const actors::worker::dial& order) const { around.dial(where, order); }
  void operator()(const actors::worker::hang_up&) const { around.hang_up(where); }
  void operator()(const actors::worker::send& order) const {
    around.send_to_leader(where, order.message);
  }
  void operator()(const actors::worker::load& order) const { around.load(where, order); }
  void operator()(const actors::worker::open_plane& order) const {
    around.open_plane(where, order);
  }
  void operator()(const actors::worker::connect_plane& order) const {
    around.connect_plane(where, order);
  }
  void operator()(const actors::worker::start_loop& order) const {
    around.start_loop(where, order);
  }
  void operator()(const actors::worker::abort_plane& order) const {
    around.abort_plane(where, order);
  }
  void operator()(const actors::worker::log& line) const { around.say(line.line); }
  void operator()(const actors::worker::phase&) const {}
  void operator()(const actors::worker::give_up& last) const {
    around.audit_.gave_up(where, last.reason);
  }
  void operator()(const actors::worker::wake_at& order) const {
    const std::uint64_t number = ++where.worker_wakes;
    world& world = around;
    process& process = where;
    around.on(where, order.when - around.now(), [&world, &process, number] {
      if (number == process.worker_wakes) world.step(process, actors::worker::timer{});
    });
  }
};

struct gang_effects {
  world& around;
  process& where;

  void operator()(const actors::gang::send& order) const {
    around.send_to_worker(order.connection, order.message);
  }
  void operator()(const actors::gang::drop& order) const { around.drop(order.connection); }
  void operator()(const actors::gang::want_segment& order) const {
    around.want_segment(where, order);
  }
  void operator()(const actors::gang::serve& order) const {
    around.audit_.served(where, order.epoch, around.options().ranks);
    around.serve(where, order.epoch);
  }
  void operator()(const actors::gang::stop_serving& order) const {
    around.audit_.stopped(where, order.epoch);
    where.leads.epoch = {};
  }
  void operator()(const actors::gang::log& line) const { around.say(line.line); }
  void operator()(const actors::gang::give_up& last) const {
    around.audit_.gave_up(where, last.reason);
  }
  void operator()(const actors::gang::wake_at& order) const {
    const std::uint64_t number = ++where.gang_wakes;
    world& world = around;
    process& process = where;
    around.on(where, order.when - around.now(), [&world, &process, number] {
      if (number == process.gang_wakes) world.step(process, actors::gang::timer{});
    });
  }
};

}  // namespace troupe::sim
