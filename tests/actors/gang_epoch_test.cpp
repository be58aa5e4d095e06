// How epochs form, serve and end, and how long the gang has patience.
#include <gmock/gmock.h>

#include "tests/actors/gang_driver.hpp"

namespace troupe::actors {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr milliseconds patience = 10min;

// The ranks say that they are out of an epoch, so that the next may begin after its pause.
void all_out(gang_driver& gang) {
  gang.each([&](int rank) { gang.load(rank); });
}

TEST(GangEpoch, PreparesAllWhenAllHaveLoaded) {
  gang_driver gang;
  gang.to_joined().load(0).load(1);
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  EXPECT_EQ(gang.machine.epoch(), epoch(0));
  gang.load(2);
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  EXPECT_EQ(gang.machine.epoch(), epoch(1));
  const auto said = gang.said<schemas::prepare>();
  ASSERT_EQ(said.size(), 3U);
  for (int rank = 0; rank < 3; ++rank) {
    ASSERT_EQ(said.count(gang.line(rank)), 1U);
    EXPECT_EQ(said.find(gang.line(rank))->second.epoch, epoch(1));
  }
  EXPECT_EQ(count_of<gang::want_segment>(gang.effects), 0);
}

TEST(GangEpoch, WaitsForTheSegmentWhereThereIsOne) {
  gang_driver gang({.wants_segment = true});
  gang.to_preparing();
  EXPECT_EQ(gang.machine.phase(), gang_phase::segment);
  ASSERT_EQ(count_of<gang::want_segment>(gang.effects), 1);
  EXPECT_EQ(all_of<gang::want_segment>(gang.effects)[0].epoch, epoch(1));
  EXPECT_EQ(all_of<gang::want_segment>(gang.effects)[0].ranks, 3);
  EXPECT_EQ(gang.count_said<schemas::prepare>(), 0);
  gang.feed(gang::segment_ready{epoch(7)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::segment);
  gang.feed(gang::segment_ready{epoch(1)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  EXPECT_EQ(gang.count_said<schemas::prepare>(), 3);
  gang.feed(gang::segment_ready{epoch(1)});
  EXPECT_EQ(gang.count_said<schemas::prepare>(), 0);
  EXPECT_EQ(gang.machine.view().stale_dropped, 2U);
}

TEST(GangEpoch, ARankLostDuringTheSegmentEndsTheEpoch) {
  gang_driver gang({.wants_segment = true});
  gang.to_preparing().feed(gang::rank_lost{{1}, "killed", 0});
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  EXPECT_EQ(gang.count_said<schemas::epoch_ended>(), 0);  // nobody was in it
  EXPECT_EQ(gang.rank(0).state, rank_state::waiting);
  gang.hear_on({99}, 1, description(1)).hear_on({99}, 1, schemas::loaded{{}, "amx_bf16"});
  gang.wait(200ms);
  EXPECT_EQ(gang.machine.phase(), gang_phase::segment);
  EXPECT_EQ(gang.machine.epoch(), epoch(2));
}

TEST(GangEpoch, GivesAllTheTableOfAddresses) {
  gang_driver gang;
  gang.to_preparing();
  gang.hear(2, schemas::prepared{epoch(1), {2}}).hear(0, schemas::prepared{epoch(1), {0}});
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  gang.hear(1, schemas::prepared{epoch(1), {1}});
  EXPECT_EQ(gang.machine.phase(), gang_phase::connecting);
  const auto said = gang.said<schemas::connect>();
  ASSERT_EQ(said.size(), 3U);
  for (int rank = 0; rank < 3; ++rank) {
    const auto found = said.find(gang.line(rank));
    ASSERT_NE(found, said.end());
    EXPECT_EQ(found->second.epoch, epoch(1));
    EXPECT_EQ(found->second.addresses, (std::vector<std::vector<std::uint8_t>>{{0}, {1}, {2}}));
  }
}

TEST(GangEpoch, ProvesItselfBeforeItServes) {
  gang_driver gang;
  gang.to_connecting();
  gang.hear(0, schemas::connected{epoch(1)}).hear(1, schemas::connected{epoch(1)});
  EXPECT_EQ(count_of<gang::serve>(gang.effects), 0);
  gang.hear(2, schemas::connected{epoch(1)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::proving);
  ASSERT_EQ(count_of<gang::serve>(gang.effects), 1);
  EXPECT_EQ(all_of<gang::serve>(gang.effects)[0].epoch, epoch(1));
  EXPECT_FALSE(gang.machine.view().ready);
  EXPECT_EQ(gang.rank(1).state, rank_state::connecting);
  gang.feed(gang::canary_done{epoch(1)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
  EXPECT_TRUE(gang.machine.view().ready);
  EXPECT_EQ(gang.machine.view().not_ready, "");
  EXPECT_EQ(gang.rank(1).state, rank_state::serving);
  EXPECT_EQ(gang.rank(1).detail, "serves");
}

TEST(GangEpoch, ACanaryOfAnotherEpochOrPhaseProvesNothing) {
  gang_driver gang;
  gang.to_connecting().feed(gang::canary_done{epoch(1)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::connecting);
  gang.all_connected(1).feed(gang::canary_done{epoch(2)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::proving);
  EXPECT_EQ(gang.machine.view().stale_dropped, 2U);
}

TEST(GangEpoch, AsksAgainOnlyThoseThatHaveNotAnswered) {
  gang_driver gang;
  gang.to_preparing().hear(1, schemas::prepared{epoch(1), {1}});
  EXPECT_EQ(gang.wait(gang_times::resend).count_said<schemas::prepare>(), 2);
  EXPECT_EQ(gang.said<schemas::prepare>().count(gang.line(1)), 0U);
  EXPECT_EQ(gang.wait(gang_times::resend).count_said<schemas::prepare>(), 2);
  gang.hear(0, schemas::prepared{epoch(1), {0}}).hear(2, schemas::prepared{epoch(1), {2}});
  gang.hear(2, schemas::connected{epoch(1)});
  EXPECT_EQ(gang.wait(gang_times::resend - 1ms).count_said<schemas::connect>(), 0);
  gang.wait(1ms);
  EXPECT_EQ(gang.count_said<schemas::connect>(), 2);
  EXPECT_EQ(gang.count_said<schemas::prepare>(), 0);
  EXPECT_EQ(gang.said<schemas::connect>().find(gang.line(0))->second.addresses.size(), 3U);
  gang.all_connected(1);
  EXPECT_THAT(all_of<gang::send>(gang.wait(5s).effects), IsEmpty());
}

TEST(GangEpoch, AServingGangIsSilentAndNeedsNoTimer) {
  gang_driver gang;
  gang.to_serving();
  EXPECT_EQ(count_of<gang::wake_at>(gang.effects), 0);
  gang.wake_at.reset();
  gang.feed(gang::timer{});
  EXPECT_THAT(gang.effects, IsEmpty());
}

TEST(GangEpoch, AnswersOfAnotherEpochAreStale) {
  gang_driver gang;
  gang.to_joined().hear(0, schemas::prepared{epoch(0), {}});
  gang.each([&](int rank) { gang.load(rank); });
  gang.hear(0, schemas::prepared{epoch(2), {}}).hear(0, schemas::prepared{epoch(1, 5), {}});
  EXPECT_EQ(gang.rank(0).detail, "opens its data plane");
  gang.all_prepared(1).hear(0, schemas::connected{epoch(2)});
  EXPECT_EQ(gang.rank(0).detail, "connects to the other ranks");
  gang.hear(0, schemas::epoch_ended{epoch(2), "no"});
  EXPECT_EQ(gang.machine.phase(), gang_phase::connecting);
  EXPECT_EQ(gang.machine.view().stale_dropped, 5U);
}

TEST(GangEpoch, AnswersOutOfTurnChangeNothing) {
  gang_driver gang;
  gang.to_preparing().hear(0, schemas::connected{epoch(1)});
  EXPECT_EQ(gang.rank(0).detail, "opens its data plane");
  gang.all_prepared(1).hear(0, schemas::prepared{epoch(1), {9}});
  EXPECT_EQ(gang.rank(0).detail, "connects to the other ranks");
  EXPECT_EQ(gang.machine.phase(), gang_phase::connecting);
}

TEST(GangEpoch, ALoadedThatCrossedThePrepareIsNothing) {
  gang_driver gang;
  gang.to_preparing().load(1);
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  EXPECT_EQ(gang.rank(1).detail, "opens its data plane");
}

TEST(GangEpoch, ALoadedAfterItsAnswerMeansThatTheRankHasLeft) {
  const auto reaches = {&gang_driver::to_connecting, &gang_driver::to_proving,
                        &gang_driver::to_serving};
  for (const auto reach : reaches) {
    gang_driver gang;
    (gang.*reach)().load(1);
    EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
    EXPECT_THAT(gang.logs(), testing::Contains(HasSubstr("rank 1 (node-1) has left it")));
    EXPECT_EQ(gang.rank(1).detail, "waits");
    EXPECT_THAT(gang.rank(0).detail, HasSubstr("has not yet left epoch 1"));
  }
  gang_driver gang;
  gang.to_preparing().hear(1, schemas::prepared{epoch(1), {}}).load(1);
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
}

struct phase_case {
  const char* name;
  gang_driver& (gang_driver::*reach)();
  bool serving_ends;
};
const std::vector<phase_case> phases = {{"preparing", &gang_driver::to_preparing, false},
                                        {"connecting", &gang_driver::to_connecting, false},
                                        {"proving", &gang_driver::to_proving, true},
                                        {"serving", &gang_driver::to_serving, true}};

TEST(GangEpoch, EndsInEveryPhaseOverEveryCause) {
  const std::vector<gang::event> causes = {
      gang::rank_lost{{2}, "killed", 0}, gang::connection_down{gang_driver::line(2), "reset"},
      gang::epoch_failed{epoch(1), "collective"},
      gang::received{gang_driver::line(2),
                     {.sender = {2}, .sequence = 99, .body = schemas::epoch_ended{epoch(1), "x"}}}};
  for (const phase_case& row : phases) {
    for (const gang::event& cause : causes) {
      gang_driver gang;
      (gang.*row.reach)();
      gang.feed(cause);
      EXPECT_EQ(gang.machine.phase(), gang_phase::gathering) << row.name;
      EXPECT_EQ(count_of<gang::stop_serving>(gang.effects), row.serving_ends ? 1 : 0) << row.name;
      const auto told = gang.said<schemas::epoch_ended>();
      EXPECT_EQ(told.count(gang.line(0)), 1U) << row.name;
      EXPECT_EQ(told.count(gang.line(1)), 1U) << row.name;
      EXPECT_EQ(told.begin()->second.epoch, epoch(1)) << row.name;
      EXPECT_FALSE(gang.machine.view().ready);
      EXPECT_THAT(gang.machine.view().not_ready, HasSubstr("epoch 1 ended"));
    }
  }
}

TEST(GangEpoch, AFailureOfAnotherEpochIsStale) {
  gang_driver gang;
  gang.to_serving().feed(gang::epoch_failed{epoch(2), "no"});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
  gang.feed(gang::epoch_failed{epoch(1), "yes"}).feed(gang::epoch_failed{epoch(1), "again"});
  EXPECT_EQ(gang.machine.view().stale_dropped, 2U);
}

TEST(GangEpoch, RepeatsTheEndUntilTheRankIsOut) {
  gang_driver gang;
  gang.to_serving().feed(gang::epoch_failed{epoch(1), "collective"}).load(0);
  gang.wait(gang_times::resend);
  EXPECT_EQ(gang.count_said<schemas::epoch_ended>(), 2);
  const auto told = gang.said<schemas::epoch_ended>();
  EXPECT_EQ(told.count(gang.line(0)), 0U);
  EXPECT_EQ(told.find(gang.line(1))->second.epoch, epoch(1));
  EXPECT_EQ(told.find(gang.line(1))->second.reason, "collective");
  EXPECT_EQ(gang.wait(gang_times::resend).count_said<schemas::epoch_ended>(), 2);
}

TEST(GangEpoch, TheNextBeginsOnlyWhenAllAreOut) {
  gang_driver gang;
  gang.to_serving().feed(gang::epoch_failed{epoch(1), "collective"}).load(0).load(1);
  EXPECT_EQ(gang.wait(5s).count_said<schemas::prepare>(), 0);
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  gang.load(2);
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);  // at once: it had served
  EXPECT_EQ(gang.machine.epoch(), epoch(2));
  gang.all_prepared(1);  // late answers of the old epoch
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  gang.all_prepared(2).all_connected(2).feed(gang::canary_done{epoch(2)});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
  EXPECT_EQ(gang.machine.view().repairs, 1U);
}

TEST(GangEpoch, PausesLongerAfterEachFailedFormation) {
  gang_driver gang;
  gang.to_preparing();
  std::vector<milliseconds> pauses;
  for (std::uint64_t number = 1; number < 10; ++number) {
    ASSERT_EQ(gang.machine.epoch(), epoch(number));
    gang.feed(gang::epoch_failed{epoch(number), "no port"});
    const time_point before = gang.now;
    all_out(gang);
    EXPECT_THAT(gang.machine.view().not_ready, HasSubstr("begins again shortly"));
    while (gang.machine.phase() == gang_phase::gathering) gang.wait(1ms);
    pauses.push_back(std::chrono::duration_cast<milliseconds>(gang.now - before));
  }
  EXPECT_GE(pauses.front(), gang_times::again_first / 2);
  EXPECT_LE(pauses.front(), gang_times::again_first * 3 / 2 + 1ms);
  EXPECT_GE(pauses.back(), gang_times::again_last / 2);
  EXPECT_LE(pauses.back(), gang_times::again_last * 3 / 2 + 1ms);
  EXPECT_EQ(gang.machine.view().repairs, 0U);
  // Once it has served, the pauses begin small again.
  gang.all_prepared(10).all_connected(10).feed(gang::canary_done{epoch(10)});
  gang.feed(gang::epoch_failed{epoch(10), "collective"});
  all_out(gang);
  gang.feed(gang::epoch_failed{epoch(11), "no port"});
  all_out(gang);
  gang.wait(200ms);
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
}

TEST(GangEpoch, EveryPhaseOfFormingHasItsTime) {
  struct slow_case {
    bool segment;
    gang_driver& (gang_driver::*reach)();
    milliseconds limit;
    const char* why;
  };
  const std::vector<slow_case> table = {
      {true, &gang_driver::to_preparing, gang_times::formation, "no shared segment"},
      {false, &gang_driver::to_preparing, gang_times::formation, "rank 0 opens its data plane"},
      {false, &gang_driver::to_connecting, gang_times::formation, "rank 0 connects to the other"},
      {false, &gang_driver::to_proving, 2min, "no first decode step"}};
  for (const slow_case& row : table) {
    gang_driver gang({.wants_segment = row.segment});
    (gang.*row.reach)();
    gang.wait(row.limit - 1ms);
    EXPECT_NE(gang.machine.phase(), gang_phase::gathering) << row.why;
    gang.wait(1ms);
    EXPECT_EQ(gang.machine.phase(), gang_phase::gathering) << row.why;
    EXPECT_THAT(gang.logs(),
                testing::Contains(AllOf(HasSubstr("took too long"), HasSubstr(row.why))));
  }
}

TEST(GangEpoch, AServingEpochHasNoEnd) {
  gang_driver gang;
  gang.to_serving().wait(24h);
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
}

TEST(GangEpoch, APhaseRepeatsWhatItAskedAPauseAfterItAskedFirst) {
  gang_driver gang;
  gang.to_joined().wait(gang_times::resend - 1ms);
  gang.each([&](int rank) { gang.load(rank); });
  ASSERT_EQ(gang.machine.phase(), gang_phase::preparing);
  EXPECT_EQ(gang.wait(gang_times::resend - 1ms).count_said<schemas::prepare>(), 0);
  EXPECT_EQ(gang.wait(1ms).count_said<schemas::prepare>(), 3);
}

TEST(GangEpoch, ADeadlineGoesWithThePhaseThatHadIt) {
  gang_driver gang;
  gang.to_preparing().feed(gang::rank_lost{{1}, "killed", 0});
  ASSERT_EQ(gang.machine.phase(), gang_phase::gathering);
  gang.wait(2 * gang_times::formation);
  EXPECT_THAT(gang.logs(), testing::Not(testing::Contains(HasSubstr("took too long"))));
}

// --- patience, drain ----------------------------------------------------------------------------

TEST(GangPatience, GivesUpAndNamesWhoIsMissing) {
  gang_driver gang({.world = 6});
  gang.join(0).load(0).join(1);
  EXPECT_FALSE(gang.wait(patience - 1ms).gave_up());
  gang.wait(1ms);
  ASSERT_TRUE(gang.gave_up());
  EXPECT_EQ(gang.gave_up()->exit_code, 4);
  EXPECT_THAT(gang.gave_up()->reason,
              HasSubstr("the gang did not form in 600 s: rank 1 loads, rank 2 has not joined, "
                        "rank 3 has not joined, rank 4 has not joined and 1 more"));
  EXPECT_EQ(gang.machine.phase(), gang_phase::over);
  // No epoch was there to end.
  EXPECT_THAT(gang.logs(), testing::Not(testing::Contains(HasSubstr("ends"))));
  EXPECT_THAT(gang.feed(gang::timer{}).effects, IsEmpty());
  EXPECT_THAT(gang.join(2).effects, IsEmpty());
  EXPECT_THAT(gang.machine.view().not_ready, HasSubstr("ended"));
}

TEST(GangPatience, EndsOnceWhenADrainComesInTheSameMoment) {
  gang_driver gang;
  gang.join(0);
  gang.now += patience;
  gang.feed(gang::drain{});
  EXPECT_EQ(count_of<gang::give_up>(gang.effects), 1);
  EXPECT_EQ(gang.gave_up()->exit_code, 0);
}

TEST(GangPatience, LastsWhileARankGetsOnWithLoading) {
  gang_driver gang;
  gang.to_joined();
  for (std::uint64_t bytes = 1; bytes < 30; ++bytes) {
    EXPECT_FALSE(gang.wait(1min).gave_up());
    gang.hear(1, schemas::loading_progress{bytes, 100});
  }
  // Progress that is none does not count.
  EXPECT_FALSE(gang.wait(5min).gave_up());
  gang.hear(1, schemas::loading_progress{29, 100});
  EXPECT_FALSE(gang.wait(5min - 1ms).gave_up());
  EXPECT_TRUE(gang.wait(1ms).gave_up());
}

TEST(GangPatience, LoadingWhileServingHasNoPart) {
  gang_driver gang;
  gang.to_serving().hear(1, schemas::loading_progress{50, 100});
  EXPECT_FALSE(gang.wait(2 * patience).gave_up());
}

TEST(GangPatience, BeginsAnewWhenAServingEpochEnds) {
  gang_driver gang;
  gang.to_serving().wait(2 * patience).feed(gang::rank_lost{{1}, "killed", 0});
  EXPECT_FALSE(gang.wait(patience - 1ms).gave_up());
  EXPECT_TRUE(gang.wait(1ms).gave_up());
}

TEST(GangPatience, DoesNotBeginAnewWithEachFailedFormation) {
  gang_driver gang;
  gang.to_preparing();
  const time_point begun = gang.now;
  while (!gang.gave_up() && gang.now - begun < 2 * patience) {
    if (gang.machine.phase() == gang_phase::preparing) {
      gang.feed(gang::epoch_failed{gang.machine.epoch(), "no port"});
      all_out(gang);
    }
    gang.wait(100ms);
  }
  EXPECT_LE(gang.now - begun, patience + 100ms);
  EXPECT_THAT(gang.gave_up()->reason, HasSubstr("did not form"));
}

TEST(GangDrain, EndsAtOnceWhenItDoesNotServe) {
  for (const auto reach : {&gang_driver::to_joined, &gang_driver::to_preparing,
                           &gang_driver::to_connecting, &gang_driver::to_proving}) {
    gang_driver gang;
    (gang.*reach)().feed(gang::drain{60'000});
    ASSERT_TRUE(gang.gave_up());
    EXPECT_EQ(gang.gave_up()->exit_code, 0);
    EXPECT_EQ(count_of<gang::give_up>(gang.effects), 1);
    EXPECT_TRUE(std::holds_alternative<gang::give_up>(gang.effects.back()));
  }
}

TEST(GangDrain, ServesUntilTheLeaderHasDrained) {
  gang_driver gang;
  gang.to_serving().feed(gang::drain{60'000});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
  EXPECT_TRUE(gang.machine.view().draining);
  EXPECT_FALSE(gang.machine.view().ready);
  EXPECT_EQ(gang.machine.view().not_ready, "it is draining");
  EXPECT_FALSE(gang.wait(59s).gave_up());
  gang.feed(gang::drained{});
  ASSERT_TRUE(gang.gave_up());
  EXPECT_EQ(gang.gave_up()->exit_code, 0);
  EXPECT_EQ(count_of<gang::stop_serving>(gang.effects), 1);
  EXPECT_EQ(gang.count_said<schemas::epoch_ended>(), 3);
  EXPECT_EQ(gang.machine.view().repairs, 0U);
}

TEST(GangDrain, EndsWhenItsTimeIsOver) {
  gang_driver gang;
  gang.to_serving().feed(gang::drain{60'000}).wait(60s);
  ASSERT_TRUE(gang.gave_up());
  EXPECT_EQ(gang.gave_up()->exit_code, 0);
}

TEST(GangDrain, EndsWhenARankIsLostMeanwhile) {
  gang_driver gang;
  gang.to_serving().feed(gang::drain{60'000}).feed(gang::rank_lost{{1}, "killed", 0});
  ASSERT_TRUE(gang.gave_up());
  EXPECT_EQ(gang.gave_up()->exit_code, 0);
}

TEST(GangDrain, DrainedWithoutADrainIsNothing) {
  gang_driver gang;
  gang.to_serving().feed(gang::drained{});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
}

// --- what people see ----------------------------------------------------------------------------

TEST(GangReport, ALinePerPhaseAndEveryTenSeconds) {
  gang_driver gang;
  EXPECT_THAT(gang.logs(), ElementsAre(HasSubstr("rank 0 has not joined, rank 1 has not joined")));
  EXPECT_THAT(gang.to_joined().load(0).load(1).logs(), IsEmpty());
  EXPECT_THAT(gang.wait(9999ms).logs(), IsEmpty());
  EXPECT_THAT(gang.wait(1ms).logs(), ElementsAre("gang: rank 2 loads"));
  EXPECT_THAT(gang.wait(10s).logs(), ElementsAre("gang: rank 2 loads"));
  EXPECT_THAT(gang.load(2).logs(), ElementsAre(HasSubstr("epoch 1 forms: rank 0 opens")));
  EXPECT_THAT(gang.all_prepared(1).logs(),
              ElementsAre(HasSubstr("epoch 1 forms: rank 0 connects")));
  EXPECT_THAT(gang.all_connected(1).logs(),
              ElementsAre(HasSubstr("epoch 1 forms: no first decode")));
  EXPECT_THAT(gang.feed(gang::canary_done{epoch(1)}).logs(),
              ElementsAre("gang: epoch 1 serves with amx_bf16 on 3 ranks"));
  EXPECT_THAT(gang.wait(1min).logs(), IsEmpty());
  EXPECT_THAT(gang.feed(gang::rank_lost{{2}, "killed by signal 9", 1}).logs(),
              ElementsAre("gang: epoch 1 ends: rank 2 (node-2) is lost: killed by signal 9",
                          HasSubstr("rank 2 is absent: killed by signal 9")));
}

TEST(GangReport, TheViewFollowsEveryRank) {
  gang_driver gang;
  gang.join(0);
  EXPECT_EQ(gang.rank(1).detail, "has not joined");
  EXPECT_EQ(gang.load(0).rank(0).state, rank_state::waiting);
  EXPECT_EQ(gang.rank(0).detail, "waits");
  gang.join(1).load(1).join(2).load(2);
  EXPECT_EQ(gang.rank(0).state, rank_state::connecting);
  gang.hear(0, schemas::prepared{epoch(1), {}});
  EXPECT_EQ(gang.rank(0).detail, "has opened its data plane");
  gang.all_prepared(1).hear(0, schemas::connected{epoch(1)});
  EXPECT_EQ(gang.rank(0).detail, "is connected");
  EXPECT_EQ(gang.rank(0).state, rank_state::connecting);
  gang.feed(gang::epoch_failed{epoch(1), "x"});
  EXPECT_EQ(gang.rank(0).state, rank_state::waiting);
  EXPECT_EQ(gang.machine.view().epoch, epoch(1));
  EXPECT_EQ(gang.machine.view().ranks.size(), 3U);
  EXPECT_EQ(gang.rank(2).rank, base::rank_id{2});
}

TEST(GangReport, ATimerThatCameEarlyIsSetAgain) {
  gang_driver gang;
  const auto first = all_of<gang::wake_at>(gang.effects);
  ASSERT_EQ(first.size(), 1U);
  gang.feed(gang::timer{});
  ASSERT_EQ(count_of<gang::wake_at>(gang.effects), 1);
  EXPECT_EQ(all_of<gang::wake_at>(gang.effects)[0].when, first[0].when);
  gang.join(0);
  EXPECT_EQ(count_of<gang::wake_at>(gang.effects), 0);
}

}  // namespace
}  // namespace troupe::actors
