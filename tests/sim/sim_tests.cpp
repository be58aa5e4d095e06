// The tests; or one seed with everything that happens in it: sim_tests --seed N; or a range of
// seeds with what they came to: sim_tests --seeds FIRST COUNT.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tests/sim/storm.hpp"

namespace troupe::sim {
namespace {

bool failed(const outcome& result) { return !result.violations.empty() || !result.formed; }

int replay(std::uint64_t seed) {
  world_options options = options_of(seed);
  options.trace = true;
  fmt::print("{} ranks on {} nodes\n", options.ranks, options.nodes);
  const outcome result = run_storm(options);
  for (const std::string& line : result.violations) fmt::print("VIOLATION {}\n", line);
  fmt::print("{} after {} ms; {} steps, {} stale plans, {} epochs ended\n",
             result.formed ? "formed" : "NOT FORMED", result.healed_in.count(), result.steps,
             result.stale_plans, result.epochs);
  return failed(result) ? 1 : 0;
}

int sweep(std::uint64_t first, std::uint64_t count) {
  std::uint64_t failures = 0;
  outcome sum;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const outcome result = run_storm(options_of(seed));
    if (failed(result)) {
      ++failures;
      fmt::print("seed {} fails: {}\n", seed,
                 result.formed ? result.violations.front() : "no epoch answers");
    }
    sum.healed_in = std::max(sum.healed_in, result.healed_in);
    sum.steps += result.steps;
    sum.stale_plans += result.stale_plans;
    sum.epochs += result.epochs;
  }
  fmt::print(
      "{} seeds, {} fail; {} steps, {} stale plans, {} served epochs ended; healed within "
      "{} ms\n",
      count, failures, sum.steps, sum.stale_plans, sum.epochs, sum.healed_in.count());
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace troupe::sim

int main(int argc, char** argv) {
  const auto number = [&](int at) { return std::strtoull(argv[at], nullptr, 10); };
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "--seed" && argc == 3) return troupe::sim::replay(number(2));
  if (what == "--seeds" && argc == 4) return troupe::sim::sweep(number(2), number(3));
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
