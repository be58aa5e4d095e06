// What the gang machine shows of itself, state by state.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/gang_driver.hpp"

namespace troupe::actors {
namespace {

std::string not_ready(const gang_driver& gang) { return gang.machine.view().not_ready; }

TEST(GangReport, ShowsARankFromItsJoinToServing) {
  gang_driver gang;
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_EQ(gang.rank(1).detail, "has not joined");
  gang.join(1);
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  gang.load(1);
  EXPECT_EQ(gang.rank(1).state, rank_state::waiting);
  EXPECT_EQ(gang.rank(1).detail, "waits");
  gang.join(0).join(2).load(0).load(2);
  EXPECT_EQ(gang.rank(1).state, rank_state::connecting);
  EXPECT_EQ(gang.rank(1).detail, "opens its data plane");
  gang.hear(1, schemas::prepared{epoch(1), {1}});
  EXPECT_EQ(gang.rank(1).state, rank_state::connecting);
  EXPECT_EQ(gang.rank(1).detail, "has opened its data plane");
  gang.hear(0, schemas::prepared{epoch(1), {0}}).hear(2, schemas::prepared{epoch(1), {2}});
  EXPECT_EQ(gang.rank(1).state, rank_state::connecting);
  EXPECT_EQ(gang.rank(1).detail, "connects to the other ranks");
  gang.all_connected(1).feed(gang::canary_done{epoch(1)});
  EXPECT_EQ(gang.rank(1).state, rank_state::serving);
  EXPECT_EQ(gang.rank(1).detail, "serves");
}

TEST(GangReport, NamesThoseThatHoldItUpInEachPhase) {
  gang_driver gang;
  EXPECT_EQ(not_ready(gang), "rank 0 has not joined, rank 1 has not joined, rank 2 has not joined");
  gang.to_preparing().hear(1, schemas::prepared{epoch(1), {1}});
  EXPECT_EQ(not_ready(gang),
            "epoch 1 forms: rank 0 opens its data plane, rank 2 opens its data plane");
  gang.hear(0, schemas::prepared{epoch(1), {0}}).hear(2, schemas::prepared{epoch(1), {2}});
  gang.hear(2, schemas::connected{epoch(1)});
  EXPECT_EQ(
      not_ready(gang),
      "epoch 1 forms: rank 0 connects to the other ranks, rank 1 connects to the other ranks");
  gang.hear(0, schemas::connected{epoch(1)}).hear(1, schemas::connected{epoch(1)});
  EXPECT_EQ(not_ready(gang), "epoch 1 forms: no first decode step");
  gang.feed(gang::canary_done{epoch(1)});
  EXPECT_EQ(not_ready(gang), "");
}

TEST(GangReport, ShowsThoseThatStillLeaveAsWaiting) {
  gang_driver gang;
  gang.to_serving().feed(gang::rank_lost{{1}, "killed", 1});
  EXPECT_EQ(gang.rank(0).state, rank_state::waiting);
  EXPECT_EQ(gang.rank(0).detail, "has not yet left epoch 1");
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_EQ(gang.rank(1).detail, "is absent: killed");
}

TEST(GangReport, SaysWhenItHasEnded) {
  gang_driver gang;
  gang.join(0);
  while (!gang.gave_up()) gang.wait(1min);
  EXPECT_EQ(gang.machine.phase(), gang_phase::over);
  EXPECT_EQ(not_ready(gang), "it has ended");
}

}  // namespace
}  // namespace troupe::actors
