// The two rules beside the machine: when to start a rank again, and when it is wedged.
#include <gtest/gtest.h>

#include <vector>

#include "supervisor/restart_policy.hpp"
#include "supervisor/vitals_watch.hpp"

namespace troupe::supervisor {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

const base::steady_time start = base::steady_time{} + std::chrono::hours(5);

TEST(RestartPolicy, DoublesItsDelayUpToHalfAMinute) {
  restart_policy policy({.restarts = 100});
  const std::vector<int> delays = {0,    250,   500,    1000,   2000,  4000,
                                   8000, 16000, 30'000, 30'000, 30'000};
  for (const int delay : delays) {
    EXPECT_EQ(policy.lost(start, start), start + milliseconds(delay));
  }
  EXPECT_EQ(policy.restarts(), delays.size());
}

TEST(RestartPolicy, BeginsAnewAfterTenMinutesUp) {
  restart_policy policy({.restarts = 100});
  for (int count = 0; count < 5; ++count) EXPECT_TRUE(policy.lost(start, start));
  const base::steady_time almost = start + minutes(10) - milliseconds(1);
  EXPECT_EQ(policy.lost(start, almost), almost + milliseconds(4000));
  const base::steady_time later = almost + minutes(10);
  EXPECT_EQ(policy.lost(almost, later), later);
}

TEST(RestartPolicy, EndsAtItsBoundWithinTheWindow) {
  restart_policy policy({.restarts = 2, .window = minutes(10)});
  EXPECT_TRUE(policy.lost(start, start));
  EXPECT_TRUE(policy.lost(start, start + minutes(9)));
  EXPECT_FALSE(policy.lost(start, start + minutes(10) - milliseconds(1)));
  EXPECT_TRUE(policy.lost(start, start + minutes(10)));
  EXPECT_EQ(policy.restarts(), 3U);
}

vitals_sample working(std::uint64_t ticks, double cpu_s) {
  return {.ticks = ticks,
          .longest_tick_ns = 0,
          .last_tick_ns = 1000 + ticks,
          .doing = 1,
          .cpu_ns = static_cast<std::uint64_t>(cpu_s * 1e9)};
}

TEST(VitalsWatch, SuspectsCpuWithoutTicks) {
  vitals_watch watch;
  EXPECT_FALSE(watch.look(working(1, 5.0), start));
  EXPECT_FALSE(watch.look(working(1, 6.0), start + seconds(1)));
  EXPECT_TRUE(watch.look(working(1, 6.01), start + seconds(1)));
}

TEST(VitalsWatch, CountsCpuFromTheLastTick) {
  vitals_watch watch;
  for (int tick = 0; tick < 100; ++tick) {
    EXPECT_FALSE(watch.look(working(static_cast<std::uint64_t>(tick), 0.9 * tick), start));
  }
}

TEST(VitalsWatch, AllowsTenTimesTheLongestTick) {
  vitals_watch watch;
  vitals_sample sample = working(1, 0.0);
  sample.longest_tick_ns = 500'000'000;
  EXPECT_FALSE(watch.look(sample, start));
  sample.cpu_ns = 5'000'000'000;
  EXPECT_FALSE(watch.look(sample, start));
  sample.cpu_ns = 5'000'000'001;
  EXPECT_TRUE(watch.look(sample, start));
}

TEST(VitalsWatch, KeepsItsWordWithAnAbsurdLongestTick) {
  vitals_watch watch;
  vitals_sample sample = working(1, 0.0);
  sample.longest_tick_ns = UINT64_MAX;
  EXPECT_FALSE(watch.look(sample, start));
  EXPECT_FALSE(watch.look(sample, start + seconds(10)));
  EXPECT_TRUE(watch.look(sample, start + milliseconds(10'001)));
}

TEST(VitalsWatch, SuspectsTenSecondsWithoutTicksWhateverTheCpu) {
  vitals_watch watch;
  EXPECT_FALSE(watch.look(working(1, 0.0), start));
  EXPECT_FALSE(watch.look(working(1, 0.0), start + seconds(10)));
  EXPECT_TRUE(watch.look(working(1, 0.0), start + milliseconds(10'001)));
}

TEST(VitalsWatch, NeverSuspectsARankThatWaitsOrIsIdle) {
  for (const std::uint32_t doing : {0U, 2U, 77U}) {
    vitals_watch watch;
    vitals_sample sample = working(1, 0.0);
    sample.doing = doing;
    EXPECT_FALSE(watch.look(sample, start));
    sample.cpu_ns = 900'000'000'000;
    EXPECT_FALSE(watch.look(sample, start + seconds(900)));
  }
}

TEST(VitalsWatch, CountsFromTheEndOfAWait) {
  vitals_watch watch;
  vitals_sample sample = working(1, 0.0);
  EXPECT_FALSE(watch.look(sample, start));
  sample.doing = 2;
  EXPECT_FALSE(watch.look(sample, start + seconds(9)));
  sample.doing = 1;
  EXPECT_FALSE(watch.look(sample, start + seconds(18)));
  EXPECT_FALSE(watch.look(sample, start + seconds(28)));
  EXPECT_TRUE(watch.look(sample, start + milliseconds(28'001)));
}

TEST(VitalsWatch, TakesANewBeginForProgress) {
  vitals_watch watch;
  vitals_sample sample = working(1, 0.0);
  EXPECT_FALSE(watch.look(sample, start));
  sample.last_tick_ns += 1;
  EXPECT_FALSE(watch.look(sample, start + seconds(11)));
  EXPECT_TRUE(watch.look(sample, start + seconds(22)));
}

TEST(VitalsWatch, DoesWithoutTheThreadsCpu) {
  vitals_watch watch;
  vitals_sample sample = working(1, 0.0);
  sample.cpu_ns.reset();
  EXPECT_FALSE(watch.look(sample, start));
  sample.cpu_ns = 7'000'000'000;  // known from now on: of unknown age
  EXPECT_FALSE(watch.look(sample, start + seconds(1)));
  sample.cpu_ns = 8'100'000'000;
  EXPECT_TRUE(watch.look(sample, start + seconds(2)));
}

TEST(VitalsWatch, ForgetsWhatItSawWhenRestarted) {
  vitals_watch watch;
  EXPECT_FALSE(watch.look(working(1, 0.0), start));
  watch.restart();
  EXPECT_FALSE(watch.look(working(1, 9.0), start + seconds(60)));
}

}  // namespace
}  // namespace troupe::supervisor
