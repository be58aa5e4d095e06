// What the supervisor decides, by table: one event after the other, with simulated time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/supervisor/machine_case.hpp"

namespace troupe::supervisor::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const schemas::segment_wanted segment_for_two{{7, 1}, 2};

// Two ranks that run.
machine_case running(machine_options options = {.world_size = 2, .has_http = true, .url = "u"}) {
  machine_case gang(std::move(options));
  gang.step_and_start(event::begin{});
  return gang;
}

machine_case with_segment() {
  machine_case gang = running();
  gang.says(0, segment_for_two);
  gang.step(event::segment_made{{7, 1}});
  return gang;
}

TEST(SupervisorMachine, AnnouncesItsUrlFirstAndStartsEveryRank) {
  machine_case gang({.world_size = 2, .has_http = true, .url = "http://127.0.0.1:1"});
  EXPECT_THAT(
      gang.step(event::begin{}),
      ElementsAre(R"(out {"event":"listening","url":"http://127.0.0.1:1"})", "spawn 0", "spawn 1"));
}

TEST(SupervisorMachine, AnnouncesNothingWithoutHttp) {
  machine_case gang({.world_size = 1});
  EXPECT_THAT(gang.step(event::begin{}), ElementsAre("spawn 0"));
}

TEST(SupervisorMachine, TellsOthersOfALossAndStartsTheRankAtOnce) {
  machine_case gang = running();
  EXPECT_THAT(gang.is_killed(1),
              ElementsAre("tell 0 rank_lost 1 (killed by signal 9 (SIGKILL)) 1", "spawn 1"));
}

TEST(SupervisorMachine, AbortsTheSegmentBeforeAnybodyIsTold) {
  machine_case gang = with_segment();
  EXPECT_THAT(gang.is_killed(1, 11),
              ElementsAre("abort_segment", "tell 0 rank_lost 1 (killed by signal 11 (SIGSEGV)) 1",
                          "spawn 1"));
}

TEST(SupervisorMachine, KillsAStoppedRankAndReportsItBeforeItIsDead) {
  machine_case gang = with_segment();
  EXPECT_THAT(gang.stops(1), ElementsAre("kill 1", "abort_segment",
                                         "tell 0 rank_lost 1 (stopped by signal 19 (SIGSTOP)) 1"));
  EXPECT_THAT(gang.stops(1), IsEmpty());
  EXPECT_THAT(gang.is_killed(1), ElementsAre("spawn 1"));
}

TEST(SupervisorMachine, WaitsForTheBackOffOfAKilledRankAlsoWhenItEndsEarly) {
  machine_case gang = running();
  gang.is_killed(1);
  gang.stops(1);
  EXPECT_THAT(gang.is_killed(1), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(249)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("spawn 1"));
}

TEST(SupervisorMachine, KillsAWedgedRankAndReportsIt) {
  machine_case gang = running();
  const vitals_sample first{.ticks = 5, .last_tick_ns = 9, .doing = 1, .cpu_ns = 1'000'000'000};
  vitals_sample later = first;
  later.cpu_ns = 2'000'000'001;
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, first}), IsEmpty());
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, later}),
              ElementsAre("kill 1", StartsWith("tell 0 rank_lost 1 (wedged: 1.0 s of CPU")));
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, later}), IsEmpty());
}

TEST(SupervisorMachine, LooksAtTheVitalsOfRunningRanksEveryTenthOfASecond) {
  machine_case gang = running();
  gang.all.clear();
  gang.pass(milliseconds(1000));
  EXPECT_EQ(std::count(gang.all.begin(), gang.all.end(), "vitals 1"), 10);
  gang.stops(1);
  gang.all.clear();
  gang.pass(milliseconds(1000));
  EXPECT_EQ(std::count(gang.all.begin(), gang.all.end(), "vitals 1"), 0);
}

TEST(SupervisorMachine, ForgetsSilenceOfRanksWhenItDidNotRunItself) {
  machine_case gang = running();
  const vitals_sample still{.ticks = 5, .last_tick_ns = 9, .doing = 1};
  gang.step(event::vitals_seen{base::rank_id{1}, still});
  gang.pass(seconds(9));
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, still}), IsEmpty());
  gang.now += seconds(5);
  gang.step(event::timer{});
  EXPECT_TRUE(gang.logged("this process did not run for a while"));
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, still}), IsEmpty());
  gang.pass(milliseconds(10'100));
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, still}), Contains("kill 1"));
}

TEST(SupervisorMachine, BacksOffAndGivesTheGangUpAtTheBound) {
  machine_case gang = running();
  const std::vector<int> delays = {0, 250, 500, 1000, 2000, 4000, 8000, 16'000};
  for (const int delay : delays) {
    const base::steady_time lost = gang.now;
    lines told = gang.is_killed(1, 6);
    const lines more = gang.pass(seconds(40));
    told.insert(told.end(), more.begin(), more.end());
    EXPECT_EQ(std::count(told.begin(), told.end(), "spawn 1"), 1) << delay;
    gang.now = lost + milliseconds(delay) + seconds(41);
  }
  EXPECT_THAT(gang.is_killed(1, 6),
              ElementsAre("tell 0 rank_lost 1 (killed by signal 6 (SIGABRT)) 8", "kill 0",
                          StartsWith("stand_in on")));
  EXPECT_THAT(gang.is_killed(0),
              ElementsAre("finish 4 rank 1 is lost: killed by signal 6 (SIGABRT); it was started "
                          "again 8 times within 10 minutes, which is the bound",
                          "stand_in off the gang is shutting down"));
}

TEST(SupervisorMachine, CountsRestartsOfEachRankByItself) {
  machine_case gang = running({.world_size = 2, .restarts = {.restarts = 1}});
  EXPECT_THAT(gang.is_killed(1), Contains("spawn 1"));
  EXPECT_THAT(gang.is_killed(0), Contains("spawn 0"));
  EXPECT_THAT(gang.is_killed(0), Contains("kill 1"));
}

TEST(SupervisorMachine, TriesARankAgainThatCannotBeStarted) {
  machine_case gang({.world_size = 1, .restarts = {.restarts = 1}});
  gang.step(event::begin{});
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{0}, "no memory"}),
              ElementsAre("spawn 0"));
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{0}, "no memory"}),
              ElementsAre(HasSubstr("finish 4 rank 0 is lost: no memory")));
}

TEST(SupervisorMachine, EndsWithAFinalExitCodeOfARank) {
  for (const int code : {2, 3, 4}) {
    machine_case gang = running({.world_size = 2});
    EXPECT_THAT(gang.exits(1, code), ElementsAre("kill 0")) << code;
    EXPECT_THAT(gang.is_killed(0),
                ElementsAre(fmt::format(
                    "finish {} rank 1 exited with code {}: its own line says why", code, code)));
  }
}

TEST(SupervisorMachine, TakesEveryOtherExitForALoss) {
  for (const int code : {0, 1, 5, 139}) {
    machine_case gang = running({.world_size = 2});
    EXPECT_THAT(gang.exits(1, code), Contains("spawn 1")) << code;
  }
}

TEST(SupervisorMachine, EndsWhenARankGivesUp) {
  machine_case gang = with_segment();
  EXPECT_THAT(gang.says(1, schemas::give_up{3, "no such model"}),
              ElementsAre("abort_segment", "kill 0", "kill 1", StartsWith("stand_in on")));
  EXPECT_THAT(gang.exits(1, 3), IsEmpty());
  EXPECT_THAT(gang.is_killed(0), Contains("finish 3 rank 1: no such model"));
}

TEST(SupervisorMachine, TakesAnUnknownCodeOfARankThatGivesUpForFailure) {
  for (const int code : {-1, 0, 5, 256}) {
    machine_case gang = running({.world_size = 1});
    gang.says(0, schemas::give_up{code, "why"});
    EXPECT_THAT(gang.is_killed(0), ElementsAre("finish 1 rank 0: why")) << code;
  }
}

TEST(SupervisorMachine, EndsWithAProcessThatDoesNotDie) {
  machine_case gang = running({.world_size = 1});
  gang.says(0, schemas::give_up{2, "why"});
  EXPECT_THAT(gang.pass(milliseconds(4999)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("finish 2 rank 0: why"));
  EXPECT_THAT(gang.step(event::timer{}), IsEmpty());
}

TEST(SupervisorMachine, LosesARankThatDoesNotReadItsMessages) {
  machine_case gang = running({.world_size = 2});
  EXPECT_THAT(gang.step(event::rank_does_not_read{base::rank_id{1}}),
              ElementsAre("kill 1", HasSubstr("does not read what it is told")));
  EXPECT_THAT(gang.step(event::rank_does_not_read{base::rank_id{1}}), IsEmpty());
}

TEST(SupervisorMachine, IgnoresWhatComesOfRanksThatItDoesNotHave) {
  machine_case gang = running();
  const base::rank_id none{17};
  const std::vector<machine_event> events = {
      event::rank_started{none},        event::rank_not_started{none, "why"},
      event::rank_does_not_read{none},  event::vitals_seen{none, {}},
      event::rank_garbled{none, "why"}, event::rank_said{none, {schemas::give_up{3, ""}}},
      event::rank_changed{none, {}}};
  for (const machine_event& one : events) EXPECT_THAT(gang.step(one), IsEmpty()) << one.index();
}

TEST(SupervisorMachine, IgnoresWhatComesOfAProcessThatIsNoLongerThere) {
  machine_case gang = running();
  gang.is_killed(1);
  gang.is_killed(1);  // waits for its back-off
  const base::rank_id rank{1};
  const std::vector<machine_event> events = {
      event::rank_started{rank},
      event::rank_not_started{rank, "why"},
      event::rank_does_not_read{rank},
      event::vitals_seen{rank, {}},
      event::rank_said{rank, {schemas::give_up{3, "why"}}},
      event::rank_changed{rank, {base::child_change::what::exited, 3}},
      event::rank_changed{rank, {base::child_change::what::stopped, 19}}};
  for (const machine_event& one : events) EXPECT_THAT(gang.step(one), IsEmpty()) << one.index();
  EXPECT_THAT(gang.pass(milliseconds(250)), ElementsAre("spawn 1"));
}

TEST(SupervisorMachine, HearsNothingOfARankThatItHasKilled) {
  machine_case gang = running();
  gang.stops(0);
  EXPECT_THAT(gang.says(0, schemas::give_up{3, "why"}), IsEmpty());
  EXPECT_THAT(gang.says(0, schemas::control_plane_listens{"127.0.0.1", 99}), IsEmpty());
  EXPECT_THAT(gang.step(event::rank_started{base::rank_id{0}}), IsEmpty());
  EXPECT_FALSE(gang.machine.health().ranks[0].running);
}

TEST(SupervisorMachine, BacksOffFromARankThatCannotBeStarted) {
  machine_case gang({.world_size = 1});
  gang.step(event::begin{});
  const event::rank_not_started failed{base::rank_id{0}, "no memory"};
  EXPECT_THAT(gang.step(failed), ElementsAre("spawn 0"));
  EXPECT_THAT(gang.step(failed), IsEmpty());
  const auto more = gang.step(event::timer{});
  EXPECT_THAT(more, IsEmpty());
  gang.now += milliseconds(250);
  EXPECT_THAT(gang.step(event::timer{}), ElementsAre("spawn 0"));
  EXPECT_TRUE(gang.logged("rank 0 is lost: no memory; it is started again in 0.25 s"));
}

TEST(SupervisorMachine, TellsOfTheLossOfARankThatWasKilledAsItStartedOnce) {
  machine_case gang({.world_size = 2});
  gang.step(event::begin{});
  gang.step(event::rank_started{base::rank_id{0}});
  EXPECT_THAT(gang.stops(1), ElementsAre("kill 1", StartsWith("tell 0 rank_lost 1 (stopped")));
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{1}, "no memory"}),
              ElementsAre("spawn 1"));
}

TEST(SupervisorMachine, CountsTheSilenceOfANewProcessFromItsStart) {
  machine_case gang = running();
  const vitals_sample still{.ticks = 5, .last_tick_ns = 9, .doing = 1};
  gang.step(event::vitals_seen{base::rank_id{1}, still});
  gang.is_killed(1);
  gang.pass(seconds(11));
  EXPECT_THAT(gang.step(event::vitals_seen{base::rank_id{1}, still}), IsEmpty());
}

TEST(SupervisorMachine, StartsRankZeroOfAServerAgainWhateverItsExit) {
  for (const int code : {0, 1}) {
    machine_case gang = running();
    EXPECT_THAT(gang.exits(0, code), Contains("spawn 0")) << code;
    EXPECT_TRUE(
        gang.logged(fmt::format("rank 0 is lost: exited with code {}; it is started again", code)));
  }
}

// --- one-shot commands ---------------------------------------------------------------------------

const machine_options command{.world_size = 2, .one_shot = true};

TEST(SupervisorMachine, EndsACommandWithTheCodeOfRankZero) {
  machine_case good = running(command);
  EXPECT_THAT(good.exits(0, 0), ElementsAre("kill 1"));
  EXPECT_THAT(good.is_killed(1), ElementsAre("finish 0 "));
  machine_case failed = running(command);
  failed.exits(0, 1);
  EXPECT_THAT(failed.is_killed(1), ElementsAre("finish 1 rank 0 exited with code 1"));
}

TEST(SupervisorMachine, EndsACommandWithFourWhenARankIsLost) {
  for (const int rank : {0, 1}) {
    machine_case gang = running(command);
    EXPECT_THAT(gang.is_killed(rank), Contains(fmt::format("kill {}", 1 - rank)));
    EXPECT_THAT(
        gang.is_killed(1 - rank),
        ElementsAre(fmt::format("finish 4 rank {} is lost: killed by signal 9 (SIGKILL)", rank)));
  }
}

TEST(SupervisorMachine, EndsACommandWithTheFinalCodeOfAWorker) {
  machine_case gang = running(command);
  gang.exits(1, 3);
  EXPECT_THAT(gang.is_killed(0), ElementsAre(StartsWith("finish 3 rank 1 exited with code 3")));
}

TEST(SupervisorMachine, InterruptsACommandAtTheFirstSignal) {
  machine_case gang = running(command);
  EXPECT_THAT(gang.step(event::signal_came{SIGINT}), ElementsAre("kill 0", "kill 1"));
  gang.is_killed(1);
  EXPECT_THAT(gang.is_killed(0), ElementsAre("finish 1 interrupted by SIGINT"));
}

TEST(SupervisorMachine, EndsACommandWithFourWhenAWorkerEndsBeforeRankZero) {
  machine_case gang = running(command);
  gang.exits(1, 0);
  EXPECT_THAT(gang.is_killed(0), ElementsAre("finish 4 rank 1 is lost: exited with code 0"));
}

TEST(SupervisorMachine, KeepsTheFirstCauseOfAnEnd) {
  machine_case gang = running(command);
  gang.step(event::signal_came{SIGINT});
  gang.pass(milliseconds(4000));
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1000)), ElementsAre("finish 1 interrupted by SIGINT"));
}

// --- the end -------------------------------------------------------------------------------------

TEST(SupervisorMachine, DrainsRankZeroFirstThenTheOthers) {
  machine_case gang = with_segment();
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), ElementsAre("tell 0 drain 100000"));
  EXPECT_THAT(gang.pass(seconds(50)), IsEmpty());
  EXPECT_THAT(gang.exits(0, 0), ElementsAre("abort_segment", "tell 1 drain 2000",
                                            "stand_in on the gang is shutting down"));
  EXPECT_THAT(gang.exits(1, 0), ElementsAre("finish 0 ", "stand_in off the gang is shutting down"));
}

TEST(SupervisorMachine, KillsRankZeroWhenThePatienceIsOver) {
  machine_case gang = running({.world_size = 2, .drain_patience = seconds(3)});
  gang.step(event::signal_came{SIGINT});
  EXPECT_THAT(gang.pass(milliseconds(2999)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("kill 0", "tell 1 drain 2000"));
  gang.exits(1, 0);
  EXPECT_THAT(gang.is_killed(0), ElementsAre("finish 1 open requests did not end within 3 s of "
                                             "the signal to drain"));
}

TEST(SupervisorMachine, KillsWhoDoesNotLeave) {
  machine_case gang = running({.world_size = 2});
  gang.step(event::signal_came{SIGTERM});
  gang.exits(0, 0);
  EXPECT_THAT(gang.pass(milliseconds(1999)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("kill 1"));
  EXPECT_THAT(gang.is_killed(1), ElementsAre("finish 0 "));
}

TEST(SupervisorMachine, EndsAtOnceAtASecondSignal) {
  for (const int second : {SIGTERM, SIGINT}) {
    machine_case gang = running({.world_size = 2});
    gang.step(event::signal_came{SIGTERM});
    EXPECT_THAT(gang.step(event::signal_came{second}), ElementsAre("kill 0", "kill 1"));
    EXPECT_THAT(gang.step(event::signal_came{second}), IsEmpty());
    gang.is_killed(0);
    EXPECT_THAT(gang.is_killed(1),
                ElementsAre(StartsWith("finish 1 ended at once by a second signal")));
  }
}

TEST(SupervisorMachine, TakesAHangUpForASignalToDrainButNotForASecondOne) {
  machine_case gang = running({.world_size = 2});
  EXPECT_THAT(gang.step(event::signal_came{SIGHUP}), ElementsAre("tell 0 drain 100000"));
  EXPECT_THAT(gang.step(event::signal_came{SIGHUP}), IsEmpty());
}

TEST(SupervisorMachine, StartsNobodyWhileItDrains) {
  machine_case gang = with_segment();
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.is_killed(1), ElementsAre("abort_segment", StartsWith("tell 0 rank_lost 1")));
  EXPECT_THAT(gang.pass(seconds(60)), IsEmpty());
  EXPECT_THAT(gang.exits(0, 0), ElementsAre("finish 0 "));
}

TEST(SupervisorMachine, DoesNotWaitForARankZeroThatIsNotThere) {
  machine_case gang = running({.world_size = 2});
  gang.is_killed(0);
  gang.stops(0);
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), ElementsAre("tell 1 drain 2000"));
  gang.is_killed(0);
  EXPECT_THAT(gang.exits(1, 0), ElementsAre("finish 0 "));
}

TEST(SupervisorMachine, DoesNotStartARankAfterItsBackOffWhenItDrains) {
  machine_case gang = running({.world_size = 2});
  gang.is_killed(1);
  gang.is_killed(1);
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.pass(seconds(60)), IsEmpty());
}

TEST(SupervisorMachine, SaysWhenRankZeroFailedInItsDrain) {
  machine_case gang = running({.world_size = 1});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.is_killed(0, 11),
              ElementsAre("finish 1 rank 0 killed by signal 11 (SIGSEGV) while it drained"));
  machine_case failed = running({.world_size = 1});
  failed.step(event::signal_came{SIGTERM});
  EXPECT_THAT(failed.exits(0, 1),
              ElementsAre("finish 1 rank 0 exited with code 1 while it drained"));
}

TEST(SupervisorMachine, KillsARankZeroThatStopsInItsDrain) {
  machine_case gang = running({.world_size = 2});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.stops(0), ElementsAre("kill 0", StartsWith("tell 1 rank_lost 0"),
                                         StartsWith("tell 1 control_plane_at :0")));
  EXPECT_THAT(gang.is_killed(0), ElementsAre("tell 1 drain 2000"));
}

TEST(SupervisorMachine, DrainsARankZeroThatIsJustStarting) {
  machine_case gang({.world_size = 2});
  gang.step(event::begin{});
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), ElementsAre("tell 0 drain 100000"));
  EXPECT_TRUE(gang.logged("SIGTERM: open requests have 100 s to end"));
}

TEST(SupervisorMachine, LeavesWhenRankZeroCannotBeStartedInItsDrain) {
  machine_case gang({.world_size = 2});
  gang.step(event::begin{});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{0}, "no memory"}),
              ElementsAre("tell 1 drain 2000"));
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{1}, "no memory"}),
              ElementsAre("finish 0 "));
}

TEST(SupervisorMachine, DrainsOnWithoutAWorkerThatCannotBeStarted) {
  machine_case gang({.world_size = 2});
  gang.step(event::begin{});
  gang.step(event::rank_started{base::rank_id{0}});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.step(event::rank_not_started{base::rank_id{1}, "no memory"}), IsEmpty());
  EXPECT_THAT(gang.exits(0, 0), ElementsAre("finish 0 "));
}

TEST(SupervisorMachine, TellsOfARankThatIsLostInADrainOnce) {
  machine_case gang = running({.world_size = 2});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.stops(1), ElementsAre("kill 1", StartsWith("tell 0 rank_lost 1")));
  EXPECT_TRUE(gang.logged("rank 1 is lost: stopped by signal 19 (SIGSTOP)"));
  EXPECT_THAT(gang.is_killed(1), IsEmpty());
}

TEST(SupervisorMachine, KillsRanksThatAreJustStartingAtASecondSignal) {
  machine_case gang({.world_size = 2});
  gang.step(event::begin{});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.step(event::signal_came{SIGTERM}), ElementsAre("kill 0", "kill 1"));
  EXPECT_THAT(gang.step(event::rank_started{base::rank_id{1}}), IsEmpty());
}

TEST(SupervisorMachine, GivesItsPatienceToTheMillisecond) {
  machine_case gang = running(
      {.world_size = 2, .drain_patience = milliseconds(130), .leave_patience = milliseconds(140)});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.pass(milliseconds(129)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("kill 0", "tell 1 drain 140"));
  EXPECT_THAT(gang.pass(milliseconds(139)), IsEmpty());
  EXPECT_THAT(gang.pass(milliseconds(1)), ElementsAre("kill 1"));
  EXPECT_TRUE(gang.logged("ranks that did not leave within 0.14 s are killed"));
}

TEST(SupervisorMachine, DoesNothingMoreWhenItHasFinished) {
  machine_case gang = running({.world_size = 1});
  gang.step(event::signal_came{SIGTERM});
  gang.exits(0, 0);
  ASSERT_TRUE(gang.machine.finished());
  gang.all.clear();
  gang.now += seconds(10);
  gang.step(event::timer{});
  gang.step(event::signal_came{SIGTERM});
  EXPECT_THAT(gang.all, IsEmpty());
}

// --- what ranks say ------------------------------------------------------------------------------

TEST(SupervisorMachine, TellsEveryRankWhereTheControlPlaneIs) {
  machine_case gang = running({.world_size = 3});
  EXPECT_THAT(
      gang.says(0, schemas::control_plane_listens{"127.0.0.1", 99}),
      ElementsAre("tell 1 control_plane_at 127.0.0.1:99", "tell 2 control_plane_at 127.0.0.1:99"));
  EXPECT_THAT(gang.is_killed(2), Contains("tell 2 control_plane_at 127.0.0.1:99"));
  EXPECT_THAT(gang.is_killed(0),
              ElementsAre(StartsWith("tell 1 rank_lost 0"), StartsWith("tell 2 rank_lost 0"),
                          "tell 1 control_plane_at :0", "tell 2 control_plane_at :0", "spawn 0"));
  EXPECT_THAT(gang.is_killed(1), Not(Contains(HasSubstr("control_plane_at"))));
}

TEST(SupervisorMachine, TakesTheControlPlaneFromRankZeroOnly) {
  machine_case gang = running();
  EXPECT_THAT(gang.says(1, schemas::control_plane_listens{"10.0.0.1", 99}), IsEmpty());
  EXPECT_TRUE(gang.logged("rank 1 sent a control plane of its own"));
}

TEST(SupervisorMachine, TellsOnlyRanksThatRunWhereTheControlPlaneIs) {
  machine_case gang = running({.world_size = 3});
  gang.stops(2);
  EXPECT_THAT(gang.says(0, schemas::control_plane_listens{"127.0.0.1", 99}),
              ElementsAre("tell 1 control_plane_at 127.0.0.1:99"));
}

TEST(SupervisorMachine, MakesASegmentForAllWhenRankZeroWantsOne) {
  machine_case gang = running();
  EXPECT_THAT(gang.says(0, segment_for_two), ElementsAre("make_segment 1 for 2"));
  EXPECT_THAT(gang.step(event::segment_made{{7, 1}}),
              ElementsAre("send_segment 1 to 0", "send_segment 1 to 1"));
  EXPECT_THAT(gang.says(0, schemas::segment_wanted{{7, 2}, 2}),
              ElementsAre("abort_segment", "make_segment 2 for 2"));
}

TEST(SupervisorMachine, RefusesAWishForASegmentThatIsNotTheGangs) {
  machine_case gang = running();
  EXPECT_THAT(gang.says(1, segment_for_two), IsEmpty());
  EXPECT_THAT(gang.says(0, schemas::segment_wanted{{7, 1}, 1 << 20}), IsEmpty());
  EXPECT_TRUE(gang.logged("no use for"));
}

TEST(SupervisorMachine, MakesNoSegmentWhileARankIsAway) {
  machine_case gang = running();
  gang.is_killed(1);
  gang.is_killed(1);
  EXPECT_THAT(gang.says(0, segment_for_two), IsEmpty());
}

TEST(SupervisorMachine, KeepsASegmentToItselfThatARankWasLostUnder) {
  machine_case gang = running();
  gang.says(0, segment_for_two);
  EXPECT_THAT(gang.is_killed(1), Contains("abort_segment"));
  EXPECT_THAT(gang.step(event::segment_made{{7, 1}}), IsEmpty());
}

TEST(SupervisorMachine, BeginsAnewWithoutSharedMemory) {
  machine_case gang = running();
  gang.says(0, segment_for_two);
  EXPECT_THAT(
      gang.step(event::segment_not_made{{7, 1}, "no memory"}),
      ElementsAre("kill 0", "tell 1 rank_lost 0 (no shared memory for the gang: no memory) 1",
                  "tell 1 control_plane_at :0", StartsWith("stand_in on")));
  EXPECT_THAT(gang.step(event::segment_not_made{{7, 1}, "no memory"}), IsEmpty());
}

TEST(SupervisorMachine, PassesOnLinesOfJsonAndNothingElse) {
  machine_case gang = running();
  EXPECT_THAT(gang.says(0, schemas::announce{R"({"event":"ready"})"}),
              ElementsAre(R"(out {"event":"ready"})"));
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("ready"), std::string("{}\n{}"),
        std::string("{\x1b}"), std::string("[1]"), "{" + std::string(4000, 'x') + "}"}) {
    EXPECT_THAT(gang.says(0, schemas::announce{json}), IsEmpty()) << json;
  }
}

TEST(SupervisorMachine, IgnoresMessagesThatRanksDoNotSendAndLogsFewOfThem) {
  machine_case gang = running();
  gang.all.clear();
  for (int count = 0; count < 1000; ++count) {
    EXPECT_THAT(gang.says(1, schemas::heartbeat{}), IsEmpty());
    EXPECT_THAT(gang.step(event::rank_garbled{base::rank_id{1}, "too short"}), IsEmpty());
  }
  EXPECT_EQ(gang.all.size(), 2U);
  EXPECT_THAT(gang.step(event::rank_said{base::rank_id{17}, {schemas::give_up{3, ""}}}), IsEmpty());
}

TEST(SupervisorMachine, PingsTwiceASecondAndStopsWhenNobodyAnswers) {
  machine_case gang = running({.world_size = 1});
  gang.all.clear();
  gang.pass(milliseconds(499));
  EXPECT_THAT(gang.all, Not(Contains("tell 0 ping 1")));
  gang.pass(milliseconds(1));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 1"));
  gang.pass(milliseconds(3400));
  EXPECT_FALSE(gang.logged("has not answered"));
  gang.pass(milliseconds(16'100));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 8"));
  EXPECT_THAT(gang.all, Not(Contains("tell 0 ping 9")));
  EXPECT_TRUE(gang.logged("rank 0 has not answered for 4 s"));
  gang.says(0, schemas::pong{99});  // of a ping that was never sent
  gang.pass(milliseconds(500));
  EXPECT_THAT(gang.all, Not(Contains("tell 0 ping 9")));
  gang.says(0, schemas::pong{8});
  gang.all.clear();
  gang.pass(milliseconds(1000));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 9"));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 10"));
  EXPECT_THAT(gang.all, Not(Contains("tell 0 ping 11")));
}

TEST(SupervisorMachine, TakesNoOldPongForANewOne) {
  machine_case gang = running({.world_size = 1});
  gang.pass(seconds(4));
  gang.says(0, schemas::pong{8});
  gang.says(0, schemas::pong{1});
  gang.all.clear();
  gang.pass(seconds(4));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 16"));
}

TEST(SupervisorMachine, PingsANewProcessFromTheBeginning) {
  machine_case gang = running({.world_size = 1});
  gang.pass(seconds(3));
  gang.says(0, schemas::pong{5});
  gang.is_killed(0);
  gang.all.clear();
  gang.pass(seconds(4));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 1"));
  EXPECT_THAT(gang.all, Contains("tell 0 ping 8"));
}

// --- the stand-in --------------------------------------------------------------------------------

TEST(SupervisorMachine, AnswersInPlaceOfRankZeroInItsBackOffOnly) {
  machine_case gang = running();
  gang.is_killed(0);
  EXPECT_THAT(gang.is_killed(0),
              Contains("stand_in on rank 0 is being started again after it was lost: killed by "
                       "signal 9 (SIGKILL)"));
  EXPECT_THAT(gang.pass(milliseconds(250)), ElementsAre("spawn 0", StartsWith("stand_in off")));
  EXPECT_THAT(gang.is_killed(1), Not(Contains(HasSubstr("stand_in"))));
}

TEST(SupervisorMachine, HasNoStandInWithoutHttp) {
  machine_case gang = running({.world_size = 2});
  EXPECT_THAT(gang.stops(0), Not(Contains(HasSubstr("stand_in"))));
}

TEST(SupervisorMachine, LeavesRankZerosSocketToItsOwnNode) {
  machine_case gang({.world_size = 2, .node_rank = 1, .nnodes = 2, .has_http = true, .url = "u"});
  EXPECT_THAT(gang.step_and_start(event::begin{}), ElementsAre("spawn 1"));
  EXPECT_THAT(gang.stops(1), Not(Contains(HasSubstr("stand_in"))));
}

// --- health --------------------------------------------------------------------------------------

schemas::phase_changed serving(std::uint64_t epoch) {
  return {schemas::rank_phase::serving, {7, epoch}, ""};
}

TEST(SupervisorMachine, IsJoinedWhenAllItsRanksServeInOneEpoch) {
  machine_case gang = running();
  EXPECT_FALSE(gang.machine.health().joined);
  EXPECT_EQ(gang.machine.health().why, "rank 0 is starting; the gang has not formed yet");
  gang.says(0, serving(1));
  EXPECT_FALSE(gang.machine.health().joined);
  EXPECT_EQ(gang.machine.health().epoch, base::epoch_id{});
  gang.says(1, serving(2));
  EXPECT_FALSE(gang.machine.health().joined);
  gang.says(0, serving(2));
  EXPECT_TRUE(gang.machine.health().joined);
  EXPECT_EQ(gang.machine.health().why, "");
  EXPECT_EQ(gang.machine.health().epoch, (base::epoch_id{7, 2}));
  gang.step(event::signal_came{SIGTERM});
  EXPECT_TRUE(gang.machine.health().joined);
}

TEST(SupervisorMachine, LeavesTheEpochWithALossAndIgnoresOldReportsOfIt) {
  machine_case gang = running();
  gang.says(0, serving(1));
  gang.says(1, serving(1));
  gang.is_killed(1);
  EXPECT_FALSE(gang.machine.health().joined);
  EXPECT_THAT(gang.machine.health().why, HasSubstr("rank 1 is lost: killed by signal 9"));
  gang.says(0, serving(1));
  gang.says(1, serving(1));
  EXPECT_FALSE(gang.machine.health().joined);
  gang.says(0, serving(2));
  gang.says(1, serving(2));
  EXPECT_TRUE(gang.machine.health().joined);
  EXPECT_EQ(gang.machine.health().ranks[1].restarts, 1U);
}

TEST(SupervisorMachine, IsNotJoinedWhileItLeaves) {
  machine_case gang = running();
  gang.says(0, serving(1));
  gang.says(1, serving(1));
  gang.step(event::signal_came{SIGTERM});
  gang.exits(0, 0);
  EXPECT_FALSE(gang.machine.health().joined);
  EXPECT_EQ(gang.machine.health().why, "this node is shutting down");
}

TEST(SupervisorMachine, KeepsThePhaseOfARankThatWasInNoEpoch) {
  machine_case gang = running({.world_size = 3});
  gang.says(0, serving(1));
  gang.says(1, schemas::phase_changed{schemas::rank_phase::loading, {}, "half"});
  gang.is_killed(2);
  const health_status health = gang.machine.health();
  EXPECT_EQ(health.ranks[0].phase, schemas::rank_phase::waiting_for_ranks);
  EXPECT_EQ(health.ranks[1].phase, schemas::rank_phase::loading);
  EXPECT_EQ(health.ranks[1].detail, "half");
  gang.says(0, serving(1));  // of the epoch that is over
  EXPECT_EQ(gang.machine.health().ranks[0].phase, schemas::rank_phase::waiting_for_ranks);
}

TEST(SupervisorMachine, SaysNothingOfTheProcessBeforeInTheHealthOfANewOne) {
  machine_case gang = running();
  gang.says(1, serving(1));
  gang.is_killed(1);
  EXPECT_EQ(gang.machine.health().ranks[1].phase, schemas::rank_phase::starting);
  EXPECT_EQ(gang.machine.health().ranks[1].detail, "");
}

TEST(SupervisorMachine, CutsALongDetail) {
  machine_case gang = running();
  gang.says(0, schemas::phase_changed{schemas::rank_phase::loading, {}, std::string(9999, 'x')});
  EXPECT_EQ(gang.machine.health().ranks[0].detail.size(), 256U);
}

}  // namespace
}  // namespace troupe::supervisor::test
