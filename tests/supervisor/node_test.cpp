// What the supervisors of several nodes decide of each other, by table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "schemas/codec.hpp"
#include "tests/supervisor/machine_case.hpp"

namespace troupe::supervisor::test {
namespace {

using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// Six ranks on three nodes: 0 and 1, 2 and 3, 4 and 5.
machine_options node(int rank) {
  return {.world_size = 6, .node_rank = rank, .nnodes = 3, .build_id = "b"};
}

schemas::heartbeat beat_of(int node_rank) {
  return {.protocol = schemas::protocol_version,
          .build_id = "b",
          .node_rank = node_rank,
          .nnodes = 3,
          .number = 1};
}

// Node 0 with node 1 on connection 11 and node 2 on connection 12.
machine_case hub() {
  machine_case gang(node(0));
  gang.step_and_start(event::begin{});
  gang.peer_says(11, beat_of(1));
  gang.peer_says(12, beat_of(2));
  return gang;
}

// Node 1, connected to node 0 as connection 5.
machine_case spoke(milliseconds heard_after = milliseconds(0)) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_opened{connection_id{5}});
  gang.now += heard_after;
  gang.peer_says(5, beat_of(0));
  return gang;
}

TEST(NodeWatch, StartsTheRanksOfItsOwnNode) {
  machine_case gang(node(1));
  EXPECT_THAT(gang.step(event::begin{}), ElementsAre("spawn 2", "spawn 3"));
}

TEST(NodeWatch, AcceptsTheNodesOfItsGang) {
  machine_case gang(node(0));
  gang.step_and_start(event::begin{});
  EXPECT_THAT(gang.peer_says(11, beat_of(1)), ElementsAre("accept_peer 11"));
  EXPECT_THAT(gang.all, Contains("tell_peer 11 heartbeat 0 of 3"));
  EXPECT_TRUE(gang.logged("node 1 is connected"));
}

TEST(NodeWatch, RefusesWhoIsOfAnotherGangAndSaysWhatDiffers) {
  struct refused {
    schemas::heartbeat said;
    std::string reason;
  };
  schemas::heartbeat protocol = beat_of(1);
  protocol.protocol = 99;
  schemas::heartbeat build = beat_of(1);
  build.build_id = "other";
  schemas::heartbeat nnodes = beat_of(1);
  nnodes.nnodes = 4;
  const refused cases[] = {
      {protocol, "it speaks protocol 99, this node 3"},
      {build, "it runs build other, this node b"},
      {nnodes, "it was started with --nnodes 4, this node with 3"},
      {beat_of(0), "it was started with --node-rank 0, expected 1 to 2"},
      {beat_of(3), "it was started with --node-rank 3, expected 1 to 2"},
      {beat_of(-1), "it was started with --node-rank -1, expected 1 to 2"},
      {beat_of(2), "another machine is node 2 already"},
  };
  for (const refused& one : cases) {
    machine_case gang(node(0));
    gang.step_and_start(event::begin{});
    gang.peer_says(12, beat_of(2));
    EXPECT_THAT(gang.peer_says(13, one.said), ElementsAre("close_peer 13")) << one.reason;
    EXPECT_TRUE(gang.logged(one.reason)) << one.reason;
    EXPECT_THAT(gang.pass(milliseconds(700)), IsEmpty());
    EXPECT_THAT(gang.peer_says(13, schemas::rank_lost{base::rank_id{2}, "forged"}), IsEmpty());
  }
}

TEST(NodeWatch, TakesOnlyAHeartbeatForAnIntroduction) {
  machine_case gang(node(0));
  gang.step_and_start(event::begin{});
  EXPECT_THAT(gang.peer_says(11, schemas::rank_lost{base::rank_id{2}, "forged"}), IsEmpty());
  EXPECT_THAT(gang.peer_says(11, schemas::give_up{3, "forged"}), IsEmpty());
}

TEST(NodeWatch, BeatsTenTimesASecondInBothDirections) {
  for (machine_case gang : {hub(), spoke()}) {
    gang.all.clear();
    const std::string peer = gang.machine.health().ranks[0].rank.value == 0 ? "11" : "5";
    const std::string line = gang.machine.health().ranks[0].rank.value == 0
                                 ? "tell_peer 11 heartbeat 0 of 3"
                                 : "tell_peer 5 heartbeat 1 of 3";
    gang.pass(milliseconds(700));
    EXPECT_EQ(std::count(gang.all.begin(), gang.all.end(), line), 7) << peer;
  }
}

TEST(NodeWatch, LosesANodeAfterEightHundredMillisecondsOfSilence) {
  machine_case gang = hub();
  gang.pass(milliseconds(500));
  gang.peer_says(12, beat_of(2));
  EXPECT_THAT(gang.pass(milliseconds(299)), IsEmpty());
  EXPECT_THAT(
      gang.pass(milliseconds(1)),
      ElementsAre("close_peer 11", "tell_peer 12 rank_lost 2 (node 1: no heartbeat for 800 ms) 0",
                  "tell_peer 12 rank_lost 3 (node 1: no heartbeat for 800 ms) 0",
                  "tell 0 rank_lost 2 (node 1: no heartbeat for 800 ms) 0",
                  "tell 1 rank_lost 2 (node 1: no heartbeat for 800 ms) 0",
                  "tell 0 rank_lost 3 (node 1: no heartbeat for 800 ms) 0",
                  "tell 1 rank_lost 3 (node 1: no heartbeat for 800 ms) 0"));
}

TEST(NodeWatch, LosesRankZeroWithNodeZeroAndDialsAgain) {
  machine_case gang = spoke();
  EXPECT_THAT(gang.pass(milliseconds(799)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)),
              ElementsAre("close_peer 5", "tell 2 rank_lost 0 (node 0: no heartbeat for 800 ms) 0",
                          "tell 3 rank_lost 0 (node 0: no heartbeat for 800 ms) 0"));
  EXPECT_THAT(gang.pass(milliseconds(99)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("dial"));
}

TEST(NodeWatch, LosesANodeAtOnceWhenItsConnectionCloses) {
  machine_case gang = hub();
  EXPECT_THAT(
      gang.step(event::peer_gone{connection_id{12}, "closed"}),
      ElementsAre("tell_peer 11 rank_lost 4 (node 2: closed) 0",
                  "tell_peer 11 rank_lost 5 (node 2: closed) 0",
                  "tell 0 rank_lost 4 (node 2: closed) 0", "tell 1 rank_lost 4 (node 2: closed) 0",
                  "tell 0 rank_lost 5 (node 2: closed) 0",
                  "tell 1 rank_lost 5 (node 2: closed) 0"));
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{12}, "closed"}), IsEmpty());
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{99}, "a stranger"}), IsEmpty());
}

TEST(NodeWatch, RestartsItsWindowWhenItDidNotRunItself) {
  machine_case gang = hub();
  gang.now += milliseconds(1000);  // the timer comes 900 ms late
  EXPECT_THAT(gang.step(event::timer{}), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(799)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), Contains("close_peer 11"));
}

TEST(NodeWatch, CountsSilenceWhenItsTimerIsAlmostOnTime) {
  machine_case gang = hub();
  gang.pass(milliseconds(600));
  gang.now += milliseconds(300);  // 200 ms late
  EXPECT_THAT(gang.step(event::timer{}), Contains("close_peer 11"));
}

TEST(NodeWatch, LosesANodeToTheMillisecond) {
  machine_case gang = spoke(milliseconds(30));
  EXPECT_THAT(gang.pass(milliseconds(799)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), Contains("close_peer 5"));
  EXPECT_TRUE(gang.logged("lost node 0: no heartbeat for 800 ms"));
  EXPECT_THAT(gang.pass(milliseconds(99)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("dial"));
}

TEST(NodeWatch, TakesALostNodeBack) {
  machine_case gang = hub();
  gang.step(event::peer_gone{connection_id{11}, "closed"});
  EXPECT_THAT(gang.peer_says(21, beat_of(1)), ElementsAre("accept_peer 21"));
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{21}, "closed"}),
              Contains("tell 0 rank_lost 2 (node 1: closed) 0"));
}

TEST(NodeWatch, PassesALossOnToTheOtherNodes) {
  machine_case gang = hub();
  EXPECT_THAT(gang.peer_says(11, schemas::rank_lost{base::rank_id{3}, "killed", 2}),
              ElementsAre("tell_peer 12 rank_lost 3 (killed) 2", "tell 0 rank_lost 3 (killed) 2",
                          "tell 1 rank_lost 3 (killed) 2"));
  machine_case other = spoke();
  EXPECT_THAT(other.peer_says(5, schemas::rank_lost{base::rank_id{4}, "killed", 1}),
              ElementsAre("tell 2 rank_lost 4 (killed) 1", "tell 3 rank_lost 4 (killed) 1"));
}

TEST(NodeWatch, TellsOtherNodesOfItsOwnLosses) {
  machine_case gang = spoke();
  EXPECT_THAT(gang.is_killed(3),
              ElementsAre("tell 2 rank_lost 3 (killed by signal 9 (SIGKILL)) 1",
                          "tell_peer 5 rank_lost 3 (killed by signal 9 (SIGKILL)) 1", "spawn 3"));
}

TEST(NodeWatch, BelievesANodeOnItsOwnRanksOnly) {
  machine_case gang = hub();
  for (const int rank : {0, 1, 4, 5, 6, -1, 1 << 30}) {
    EXPECT_THAT(gang.peer_says(11, schemas::rank_lost{base::rank_id{rank}, "forged"}), IsEmpty());
  }
  EXPECT_TRUE(gang.logged("node 1 said that rank 4 is lost, which is not its own"));
  machine_case other = spoke();
  for (const int rank : {2, 3, 6, -1}) {
    EXPECT_THAT(other.peer_says(5, schemas::rank_lost{base::rank_id{rank}, "forged"}), IsEmpty());
  }
  EXPECT_THAT(other.peer_says(5, schemas::give_up{3, "forged"}), IsEmpty());
  EXPECT_TRUE(other.logged("node 0 sent a message that nodes do not send"));
}

TEST(NodeWatch, DialsWithADelayThatGrowsToTwoSeconds) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  EXPECT_THAT(gang.pass(milliseconds(0)), ElementsAre("dial"));
  for (const int delay : {100, 200, 400, 800, 1600, 2000, 2000}) {
    EXPECT_THAT(gang.pass(seconds(5)), IsEmpty());  // one at a time
    gang.step(event::peer_not_reached{"refused"});
    EXPECT_THAT(gang.pass(milliseconds(delay - 1)), IsEmpty()) << delay;
    EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("dial")) << delay;
  }
  const auto lines_of_log = std::count_if(gang.all.begin(), gang.all.end(), [](const auto& line) {
    return line.find("cannot be reached yet") != std::string::npos;
  });
  EXPECT_EQ(lines_of_log, 1);
}

TEST(NodeWatch, NodeZeroDialsNobody) {
  machine_case gang(node(0));
  gang.step_and_start(event::begin{});
  EXPECT_THAT(gang.pass(seconds(5)), IsEmpty());
  EXPECT_THAT(gang.step(event::peer_opened{connection_id{3}}), ElementsAre("close_peer 3"));
}

TEST(NodeWatch, IntroducesItselfWhereItHasDialled) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.all.clear();
  gang.step(event::peer_opened{connection_id{5}});
  EXPECT_THAT(gang.all, ElementsAre("tell_peer 5 heartbeat 1 of 3"));
  EXPECT_THAT(gang.peer_says(6, beat_of(0)), IsEmpty());  // not the one it dialled
  EXPECT_THAT(gang.peer_says(5, beat_of(0)), ElementsAre("accept_peer 5"));
  EXPECT_THAT(gang.step(event::peer_opened{connection_id{7}}), ElementsAre("close_peer 7"));
}

TEST(NodeWatch, HoldsOneConnectionThatIsNotIntroducedYet) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_opened{connection_id{5}});
  EXPECT_THAT(gang.step(event::peer_opened{connection_id{6}}), ElementsAre("close_peer 6"));
  EXPECT_THAT(gang.peer_says(5, beat_of(0)), ElementsAre("accept_peer 5"));
}

TEST(NodeWatch, TellsWhoIsRefusedWhatItIsItself) {
  machine_case gang(node(0));
  gang.step_and_start(event::begin{});
  gang.all.clear();
  gang.peer_says(13, beat_of(0));
  ASSERT_EQ(gang.all.size(), 3U);
  EXPECT_THAT(gang.all[0], StartsWith("log node 0 is refused"));
  EXPECT_EQ(gang.all[1], "tell_peer 13 heartbeat 0 of 3");
  EXPECT_EQ(gang.all[2], "close_peer 13");
}

TEST(NodeWatch, ComplainsAgainAfterAConnectionThatStood) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_not_reached{"refused"});
  gang.pass(milliseconds(100));
  gang.step(event::peer_opened{connection_id{5}});
  gang.peer_says(5, beat_of(0));
  gang.step(event::peer_gone{connection_id{5}, "closed"});
  gang.pass(milliseconds(100));
  gang.all.clear();
  gang.step(event::peer_not_reached{"refused"});
  EXPECT_TRUE(gang.logged("node 0 cannot be reached yet: refused"));
}

TEST(NodeWatch, DialsAgainWhenNodeZeroIsAnotherGangs) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_opened{connection_id{5}});
  EXPECT_THAT(gang.peer_says(5, beat_of(2)), ElementsAre("close_peer 5"));
  EXPECT_TRUE(gang.logged("node 2 is refused: it was started with --node-rank 2, expected 0"));
  EXPECT_THAT(gang.pass(milliseconds(100)), ElementsAre("dial"));
  gang.step(event::peer_opened{connection_id{6}});
  EXPECT_THAT(gang.peer_says(6, beat_of(0)), ElementsAre("accept_peer 6"));
}

TEST(NodeWatch, DialsAgainWhenItsConnectionEndsBeforeAnIntroduction) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_opened{connection_id{5}});
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{5}, "closed"}), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(100)), ElementsAre("dial"));
  gang.step(event::peer_opened{connection_id{6}});
  EXPECT_THAT(gang.peer_says(6, beat_of(0)), ElementsAre("accept_peer 6"));
}

TEST(NodeWatch, BeginsWithAShortDelayAfterAConnectionThatStood) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  for (int count = 0; count < 6; ++count) {
    gang.pass(seconds(2));
    gang.step(event::peer_not_reached{"refused"});
  }
  gang.pass(seconds(2));
  gang.step(event::peer_opened{connection_id{5}});
  gang.peer_says(5, beat_of(0));
  gang.step(event::peer_gone{connection_id{5}, "closed"});
  EXPECT_THAT(gang.pass(milliseconds(100)), ElementsAre("dial"));
}

TEST(NodeWatch, WritesOneLineOfManyStrangers) {
  machine_case gang = hub();
  gang.all.clear();
  for (int count = 0; count < 100; ++count) {
    EXPECT_THAT(gang.step(event::stranger_refused{"no certificate"}), IsEmpty());
  }
  EXPECT_EQ(gang.all.size(), 1U);
}

TEST(NodeWatch, AsksForNoSegmentAcrossNodes) {
  machine_case gang = hub();
  EXPECT_THAT(gang.says(0, schemas::segment_wanted{{7, 1}, 6}), IsEmpty());
}

TEST(NodeWatch, LeavesTheEpochWithANode) {
  machine_case gang = spoke();
  for (const int rank : {2, 3}) {
    gang.says(rank, schemas::phase_changed{schemas::rank_phase::serving, {7, 1}, ""});
  }
  EXPECT_TRUE(gang.machine.health().joined);
  gang.step(event::peer_gone{connection_id{5}, "closed"});
  EXPECT_FALSE(gang.machine.health().joined);
  EXPECT_THAT(gang.machine.health().why, HasSubstr("rank 0 is lost: node 0: closed"));
}

TEST(NodeWatch, LetsItsRanksRunUntilRankZeroHasDrainedElsewhere) {
  machine_case gang = spoke();
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), IsEmpty());
  EXPECT_THAT(gang.peer_says(5, schemas::rank_lost{base::rank_id{5}, "killed"}),
              Not(Contains(HasSubstr("drain"))));
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{5}, "closed"}),
              ElementsAre(StartsWith("tell 2 rank_lost 0"), StartsWith("tell 3 rank_lost 0"),
                          "tell 2 drain 2000", "tell 3 drain 2000"));
  gang.exits(2, 0);
  EXPECT_THAT(gang.exits(3, 0), ElementsAre("finish 0 "));
}

TEST(NodeWatch, WaitsForRankZeroElsewhereAlsoWithoutRanksOfItsOwn) {
  machine_case gang(node(1));
  gang.step(event::begin{});
  gang.step(event::timer{});
  gang.step(event::peer_opened{connection_id{5}});
  gang.peer_says(5, beat_of(0));
  gang.step(event::signal_came{SIGTERM});
  for (const int rank : {2, 3}) {
    EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{rank}, "why"}), IsEmpty());
  }
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{5}, "closed"}), ElementsAre("finish 0 "));
}

TEST(NodeWatch, DoesNotWaitForALeaderThatIsAway) {
  machine_case gang(node(1));
  gang.step_and_start(event::begin{});
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}),
              ElementsAre("tell 2 drain 2000", "tell 3 drain 2000"));
}

TEST(NodeWatch, EndsItsPatienceWithALeaderThatDoesNotDrain) {
  machine_options options = node(1);
  options.drain_patience = milliseconds(500);
  machine_case gang(options);
  gang.step_and_start(event::begin{});
  gang.pass(milliseconds(0));
  gang.step(event::peer_opened{connection_id{5}});
  gang.peer_says(5, beat_of(0));
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.pass(milliseconds(500)), ElementsAre("tell 2 drain 2000", "tell 3 drain 2000"));
  gang.exits(2, 0);
  EXPECT_THAT(gang.exits(3, 0), ElementsAre("finish 0 "));
}

TEST(NodeWatch, EndsACommandWithANodeThatIsLost) {
  machine_options options = node(0);
  options.one_shot = true;
  machine_case gang(options);
  gang.step_and_start(event::begin{});
  gang.peer_says(11, beat_of(1));
  EXPECT_THAT(gang.step(event::peer_gone{connection_id{11}, "closed"}), Contains("kill 0"));
  gang.is_killed(0);
  EXPECT_THAT(gang.is_killed(1), ElementsAre("finish 4 rank 2 is lost: node 1: closed"));
}

}  // namespace
}  // namespace troupe::supervisor::test
