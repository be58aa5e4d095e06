// What a rank's process does for its machines: loads, opens, connects, loops, leads.
#include <fmt/format.h>

#include "tests/sim/world.hpp"

namespace troupe::sim {

using namespace std::chrono_literals;

namespace {

constexpr milliseconds connect_patience = 10s;
constexpr milliseconds step_patience = 5s;

}  // namespace

void world::load(process& where, const actors::worker::load& order) {
  const std::uint64_t replaced = where.load;
  where.load = order.load;
  where.packed_path.clear();
  const base::error cancelled{
      .code = base::error_code::cancelled, .message = "replaced", .origin = "sim"};
  if (replaced != 0) {
    on(where, 1ms, [this, &where, replaced, cancelled] {
      step(where, actors::worker::load_failed{replaced, cancelled});
    });
  }
  const auto takes = dice_.pause(100ms, 8s);
  for (int part = 1; part < 8; ++part) {
    on(where, takes * part / 8, [this, &where, order, part] {
      if (where.load != order.load) return;
      step(where, actors::worker::load_progress{order.load, static_cast<std::uint64_t>(part), 8});
    });
  }
  on(where, takes, [this, &where, order] {
    if (where.load != order.load) return;
    where.load = 0;
    if (dice_.hits(sky.host_fails)) {
      step(where, actors::worker::load_failed{order.load,
                                              {.code = base::error_code::unavailable,
                                               .message = "the file system is away",
                                               .origin = "sim",
                                               .retryable = true}});
      return;
    }
    where.packed_path = order.instruction_path;
    step(where, actors::worker::weights_loaded{order.load, {}});
  });
}

void world::open_plane(process& where, const actors::worker::open_plane& order) {
  audit_.expect(where.at.stage == plane_stage::none, where, "opens a second plane");
  const std::uint64_t work = where.at.work + 1;
  where.at = {.epoch = order.epoch, .stage = plane_stage::opening, .work = work};
  on(where, dice_.pause(100us, 50ms), [this, &where, order, work] {
    if (where.at.work != work || where.at.aborted) return;
    if (dice_.hits(sky.host_fails)) {
      where.at.stage = plane_stage::none;
      step(where, actors::worker::plane_failed{order.epoch, "no memory"});
      return;
    }
    where.at.stage = plane_stage::open;
    where.at.address = {static_cast<std::uint8_t>(where.rank),
                        static_cast<std::uint8_t>(where.life),
                        static_cast<std::uint8_t>(order.epoch.number)};
    step(where, actors::worker::plane_opened{order.epoch, where.at.address});
  });
}

void world::connect_plane(process& where, const actors::worker::connect_plane& order) {
  audit_.expect(where.at.stage == plane_stage::open && where.at.epoch == order.epoch, where,
                "connects a plane that is not open");
  where.at.stage = plane_stage::connecting;
  where.at.peers = order.addresses;
  const std::uint64_t work = ++where.at.work;
  on(where, dice_.pause(100us, 20ms),
     [this, &where, work] { try_connect(where, work, time_.now() + connect_patience); });
}

void world::try_connect(process& where, std::uint64_t work, time_point until) {
  if (where.at.work != work || where.at.aborted) return;
  bool all = true;
  for (int rank = 0; rank < options_.ranks; ++rank) {
    const process* peer = current_[static_cast<std::size_t>(rank)];
    all = all && peer != nullptr && peer->alive && peer->at.epoch == where.at.epoch &&
          peer->at.stage >= plane_stage::open && !peer->at.aborted &&
          peer->at.address == where.at.peers[static_cast<std::size_t>(rank)] &&
          flows(where, *peer) && flows(*peer, where);
  }
  if (all && !dice_.hits(sky.host_fails)) {
    step(where, actors::worker::plane_connected{where.at.epoch});
  } else if (time_.now() >= until || dice_.hits(sky.host_fails)) {
    const base::epoch_id epoch = where.at.epoch;
    where.at.stage = plane_stage::none;
    step(where, actors::worker::plane_failed{epoch, "a peer does not answer"});
  } else {
    on(where, 20ms, [this, &where, work, until] { try_connect(where, work, until); });
  }
}

void world::start_loop(process& where, const actors::worker::start_loop& order) {
  audit_.loop_started(where, order.epoch);
  where.at.stage = plane_stage::looping;
  ++where.at.work;
}

void world::abort_plane(process& where, const actors::worker::abort_plane& order) {
  audit_.expect(where.at.epoch == order.epoch, where, "aborts a plane that it does not have");
  const plane_stage stage = where.at.stage;
  if (stage == plane_stage::none || stage == plane_stage::open) {
    where.at.stage = plane_stage::none;
    return;
  }
  where.at.aborted = true;
  // Its peers notice now and then, by themselves.
  for (process* peer : current_) {
    if (peer == nullptr || peer == &where || !dice_.hits(0.3)) continue;
    on(*peer, dice_.pause(1ms, 100ms), [this, peer, order] {
      if (peer->at.epoch != order.epoch || peer->at.stage != plane_stage::looping ||
          peer->at.aborted) {
        return;
      }
      peer->at.stage = plane_stage::none;
      step(*peer, actors::worker::loop_ended{order.epoch, "a peer has aborted"});
    });
  }
  on(where, dice_.pause(1us, 1ms), [this, &where, order, stage] {
    where.at.stage = plane_stage::none;
    if (stage == plane_stage::looping) {
      step(where, actors::worker::loop_ended{order.epoch, "aborted"});
    } else if (stage == plane_stage::opening && dice_.hits(0.5)) {
      step(where, actors::worker::plane_opened{order.epoch, {}});
    } else if (stage == plane_stage::connecting && dice_.hits(0.3)) {
      step(where, actors::worker::plane_connected{order.epoch});
    } else {
      step(where, actors::worker::plane_failed{order.epoch, "aborted"});
    }
  });
}

void world::want_segment(process& where, const actors::gang::want_segment& order) {
  if (dice_.hits(sky.drop)) return;
  on(where, dice_.pause(100us, 20ms),
     [this, &where, order] { step(where, actors::gang::segment_ready{order.epoch}); });
}

// --- the leader's steps -------------------------------------------------------------------------

void world::serve(process& where, base::epoch_id epoch) {
  where.leads = {.epoch = epoch};
  on(where, dice_.pause(10us, 1ms), [this, &where, epoch] {
    if (where.leads.epoch == epoch) send_plan(where);
  });
}

// Over the data plane, which may hold a plan up for longer than its epoch lives.
void world::send_plan(process& where) {
  leading& leads = where.leads;
  ++leads.step;
  leads.answered.clear();
  const base::epoch_id epoch = leads.epoch;
  const std::uint64_t step_number = leads.step;
  for (process* each : current_) {
    if (each == nullptr || !flows(where, *each)) continue;
    const auto pause = dice_.hits(sky.late) ? dice_.pause(1ms, 3s) : dice_.pause(20us, 1ms);
    on(*each, pause,
       [this, each, &where, epoch, step_number] { take_plan(*each, where, epoch, step_number); });
  }
  on(where, step_patience, [this, &where, epoch, step_number] {
    if (where.leads.epoch == epoch && where.leads.step == step_number) {
      step(where, actors::gang::epoch_failed{epoch, "a step takes too long"});
    }
  });
}

void world::take_plan(process& where, process& leader, base::epoch_id epoch,
                      std::uint64_t step_number) {
  if (where.at.stage != plane_stage::looping || where.at.aborted || where.at.epoch != epoch) {
    audit_.stale_plan();
    return;
  }
  audit_.accepted(where, epoch);
  if (!flows(where, leader)) return;
  on(leader, dice_.pause(20us, 5ms), [this, &leader, epoch, step_number, rank = where.rank] {
    take_result(leader, epoch, step_number, rank);
  });
}

void world::take_result(process& leader, base::epoch_id epoch, std::uint64_t step_number,
                        int rank) {
  leading& leads = leader.leads;
  if (leads.epoch != epoch || leads.step != step_number) return;
  leads.answered.insert(rank);
  if (static_cast<int>(leads.answered.size()) < options_.ranks) return;
  audit_.step_done(leader, epoch, time_.now());
  if (!leads.proved) {
    leads.proved = true;
    step(leader, actors::gang::canary_done{epoch});
  }
  on(leader, dice_.pause(20ms, 200ms), [this, &leader, epoch, step_number] {
    if (leader.leads.epoch == epoch && leader.leads.step == step_number) send_plan(leader);
  });
}

}  // namespace troupe::sim
