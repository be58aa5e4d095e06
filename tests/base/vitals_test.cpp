#include "base/vitals.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

namespace troupe::base {
namespace {

activity doing(const rank_vitals& of) { return static_cast<activity>(of.doing.load()); }

TEST(Working, GivesBackWhatWasSaidBefore) {
  rank_vitals vitals;
  vitals.begin(activity::waiting);
  {
    const working outer(&vitals, cpu_tells::progress);
    EXPECT_EQ(doing(vitals), activity::working);
    EXPECT_EQ(vitals.thread_id, ::gettid());
    {
      const working inner(&vitals, cpu_tells::nothing);
      EXPECT_EQ(doing(vitals), activity::working);
      EXPECT_EQ(vitals.thread_id, 0);
    }
    EXPECT_EQ(doing(vitals), activity::working);
    EXPECT_EQ(vitals.thread_id, ::gettid());
  }
  EXPECT_EQ(doing(vitals), activity::waiting);
  EXPECT_EQ(vitals.thread_id, 0);
}

TEST(Working, CountsNoTimeThatPassedBefore) {
  rank_vitals vitals;
  vitals.begin(activity::idle);
  vitals.last_tick_ns = 1;  // long ago
  const working now(&vitals, cpu_tells::progress);
  vitals.tick();
  EXPECT_LT(vitals.longest_tick_ns, 60'000'000'000U);
}

TEST(Working, TakesNoVitalsToo) { const working nobody(nullptr, cpu_tells::progress); }

}  // namespace
}  // namespace troupe::base
