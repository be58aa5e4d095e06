#include "tests/sim/storm.hpp"

namespace troupe::sim {

using namespace std::chrono_literals;

namespace {

void part(world& around) {
  const int nodes = around.options().nodes;
  const int alone = around.dice().between(0, nodes - 1);
  const bool outward = around.dice().hits(0.7);
  const bool inward = !outward || around.dice().hits(0.5);
  around.say("a partition");
  for (int other = 0; other < nodes; ++other) {
    if (other == alone) continue;
    // Sometimes only some of its paths.
    if (outward && around.dice().hits(0.8)) around.block(alone, other);
    if (inward && around.dice().hits(0.8)) around.block(other, alone);
  }
}

void change_weather(world& around) {
  chance& dice = around.dice();
  const auto maybe = [&dice](double most) {
    return dice.hits(0.5) ? most * dice.between(1, 100) / 100 : 0;
  };
  around.sky = {
      .drop = maybe(0.3), .repeat = maybe(0.3), .late = maybe(0.3), .host_fails = maybe(0.15)};
}

}  // namespace

void one_fault(world& around) {
  chance& dice = around.dice();
  const int rank = dice.between(0, around.options().ranks - 1);
  const int node = dice.between(0, around.options().nodes - 1);
  switch (dice.between(0, 10)) {
    case 0:
      around.kill(rank);
      break;
    case 1:
      around.kill(0);
      break;
    case 2:
      around.break_connection(rank, false);
      break;
    case 3:
      around.break_connection(rank, true);
      break;
    case 4:
    case 5:
      part(around);
      break;
    case 6:
      around.unblock_all();
      break;
    case 7:
      around.pause_node(node, milliseconds(dice.between(10, 15'000)));
      break;
    case 8:
      change_weather(around);
      break;
    case 9:
      if (dice.hits(0.5)) around.kill_silently(node);
      break;
    default:
      if (dice.hits(0.5)) around.replace_leader();
      break;
  }
}

outcome run_storm(const world_options& options) {
  world around(options);
  chance& dice = around.dice();
  const time_point storm_ends = around.now() + 5min;
  const int busy = dice.between(1, 10);  // some storms leave time to serve
  while (around.now() < storm_ends) {
    around.run_for(milliseconds(dice.between(1, 2'000 * busy)));
    one_fault(around);
  }
  around.say("the storm is over");
  around.calm_down();
  const time_point healed = around.now();
  around.run_for(healing_max + calm_after);

  const auditor& audit = around.audit();
  const time_point since = audit.answering_since();
  return {.violations = audit.violations(),
          .formed = around.now() - audit.last_step() < 1s && since <= healed + healing_max,
          .healed_in = std::chrono::duration_cast<milliseconds>(std::max(since, healed) - healed),
          .steps = audit.steps(),
          .stale_plans = audit.stale_plans(),
          .epochs = audit.epochs_ended()};
}

}  // namespace troupe::sim
