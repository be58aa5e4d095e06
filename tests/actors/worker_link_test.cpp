// The worker's way to its leader: seeking, dialing, joining, refusals, patience.
#include <gmock/gmock.h>

#include "tests/actors/worker_driver.hpp"

namespace troupe::actors {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

constexpr milliseconds patience = 10min;

TEST(WorkerLink, BeginsWithLoadingForTheFastestPath) {
  worker_driver rank;
  rank.to_started();
  const auto loads = all_of<worker::load>(rank.effects);
  ASSERT_EQ(loads.size(), 1U);
  EXPECT_EQ(loads[0].instruction_path, "amx_bf16");
  EXPECT_EQ(rank.machine.weights(), worker_weights::loading);
  EXPECT_EQ(count_of<worker::dial>(rank.effects), 0);
}

TEST(WorkerLink, BeginsWithLoadingForItsOnlyPath) {
  schemas::join_request self = description(1);
  self.instruction_paths = {"avx2"};
  worker_driver rank({.self = self, .world_size = 2});
  rank.to_started();
  EXPECT_EQ(all_of<worker::load>(rank.effects).at(0).instruction_path, "avx2");
}

TEST(WorkerLink, DialsWhereTheLeaderIs) {
  worker_driver rank;
  rank.to_dialing();
  const auto dials = all_of<worker::dial>(rank.effects);
  ASSERT_EQ(dials.size(), 1U);
  EXPECT_EQ(dials[0].host, "leader");
  EXPECT_EQ(dials[0].port, 8472);
  EXPECT_EQ(rank.machine.link(), worker_link::dialing);
}

TEST(WorkerLink, AsksToJoinWhenTheConnectionIsUp) {
  worker_driver rank;
  rank.to_joining();
  const auto sends = all_of<worker::send>(rank.effects);
  ASSERT_EQ(sends.size(), 1U);
  EXPECT_EQ(sends[0].message.sender, base::rank_id{1});
  EXPECT_EQ(sends[0].message.sequence, 1U);
  ASSERT_EQ(rank.said<schemas::join_request>().size(), 1U);
  EXPECT_EQ(rank.said<schemas::join_request>()[0].node, "node-1");
  EXPECT_EQ(rank.machine.link(), worker_link::joining);
}

TEST(WorkerLink, AsksAgainWhenNobodyAnswers) {
  worker_driver rank;
  rank.to_joining();
  EXPECT_TRUE(rank.wait(worker_times::resend - 1ms).said<schemas::join_request>().empty());
  EXPECT_EQ(rank.wait(1ms).said<schemas::join_request>().size(), 1U);
  EXPECT_EQ(all_of<worker::send>(rank.effects)[0].message.sequence, 2U);
  EXPECT_EQ(rank.wait(worker_times::resend).said<schemas::join_request>().size(), 1U);
}

TEST(WorkerLink, IsWelcomed) {
  worker_driver rank;
  rank.to_welcomed();
  EXPECT_EQ(rank.machine.link(), worker_link::welcomed);
  EXPECT_EQ(rank.messages(), 0);  // it still loads
  // Nothing is due but the next line about its phase.
  EXPECT_EQ(rank.wake_at, rank.now + worker_times::say_every);
  EXPECT_TRUE(rank.wait(5s).said<schemas::join_request>().empty());
}

TEST(WorkerLink, DialsAgainWithBackOffWhenTheLeaderCannotBeReached) {
  worker_driver rank;
  rank.to_dialing();
  std::vector<milliseconds> pauses;
  for (int attempt = 0; attempt < 12; ++attempt) {
    rank.feed(worker::control_down{rank.last_dial, "refused"});
    ASSERT_EQ(rank.machine.link(), worker_link::seeking);
    EXPECT_EQ(count_of<worker::dial>(rank.effects), 0);
    const time_point before = rank.now;
    while (rank.machine.link() == worker_link::seeking) rank.wait(1ms);
    EXPECT_EQ(count_of<worker::dial>(rank.effects), 1);
    pauses.push_back(std::chrono::duration_cast<milliseconds>(rank.now - before));
  }
  EXPECT_LE(pauses.front(), worker_times::dial_first * 3 / 2 + 1ms);
  EXPECT_GE(pauses.back(), worker_times::dial_last / 2);
  EXPECT_LE(pauses.back(), worker_times::dial_last * 3 / 2 + 1ms);
}

TEST(WorkerLink, BackOffBeginsAnewOnceWelcomed) {
  worker_driver rank;
  rank.to_dialing();
  for (int attempt = 0; attempt < 12; ++attempt) {
    rank.feed(worker::control_down{rank.last_dial, "refused"}).wait(4s);
  }
  rank.come_up().hear(schemas::welcome{incarnation, "amx_bf16"});
  rank.feed(worker::control_down{rank.last_dial, "reset"});
  EXPECT_EQ(count_of<worker::dial>(rank.wait(100ms).effects), 1);
}

TEST(WorkerLink, ANewWordOfTheSameLeaderEndsThePause) {
  worker_driver rank;
  rank.to_dialing();
  for (int attempt = 0; attempt < 12; ++attempt) {
    rank.feed(worker::control_down{rank.last_dial, "refused"}).wait(4s);
  }
  rank.feed(worker::control_down{rank.last_dial, "refused"});
  rank.feed(worker::leader_at{"leader", 8472});
  EXPECT_EQ(count_of<worker::dial>(rank.effects), 1);
  EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 0);
  // Only one dial: the pause that was running is over.
  EXPECT_EQ(count_of<worker::dial>(rank.wait(10s).effects), 0);
  // And the pauses begin small again.
  rank.feed(worker::control_down{rank.last_dial, "refused"});
  EXPECT_EQ(count_of<worker::dial>(rank.wait(100ms).effects), 1);
}

TEST(WorkerLink, TheSameLeaderAgainChangesNothing) {
  worker_driver rank;
  rank.to_welcomed();
  rank.feed(worker::leader_at{"leader", 8472});
  EXPECT_EQ(count_of<worker::dial>(rank.effects), 0);
  EXPECT_EQ(rank.machine.link(), worker_link::welcomed);
}

TEST(WorkerLink, FollowsALeaderThatMoves) {
  for (const worker::leader_at& moved :
       {worker::leader_at{"other", 8472}, worker::leader_at{"leader", 8473}}) {
    worker_driver rank;
    rank.to_serving();
    rank.feed(moved);
    EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 1);
    const auto dials = all_of<worker::dial>(rank.effects);
    ASSERT_EQ(dials.size(), 1U);
    EXPECT_EQ(dials[0].host, moved.host);
    EXPECT_EQ(dials[0].port, moved.port);
    EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1);
    EXPECT_EQ(rank.machine.link(), worker_link::dialing);
    EXPECT_EQ(count_of<worker::dial>(rank.wait(10s).effects), 0);
  }
}

TEST(WorkerLink, WaitsWhileTheLeaderIsNowhere) {
  worker_driver rank;
  rank.to_serving();
  rank.feed(worker::leader_unknown{});
  EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 1);
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1);
  EXPECT_EQ(rank.machine.link(), worker_link::seeking);
  EXPECT_EQ(count_of<worker::dial>(rank.wait(1min).effects), 0);
  rank.feed(worker::leader_at{"leader", 8472});
  EXPECT_EQ(count_of<worker::dial>(rank.effects), 1);
}

TEST(WorkerLink, AnUnknownLeaderEndsThePauseBeforeTheNextDial) {
  worker_driver rank;
  rank.to_dialing();
  rank.feed(worker::control_down{rank.last_dial, "refused"});
  rank.feed(worker::leader_unknown{});
  EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 0);
  EXPECT_EQ(count_of<worker::dial>(rank.wait(1min).effects), 0);
}

TEST(WorkerLink, WhatComesOfAnEarlierConnectionIsDropped) {
  worker_driver rank;
  rank.to_dialing();
  const std::uint64_t first = rank.last_dial;
  rank.feed(worker::control_down{first, "refused"});
  EXPECT_EQ(rank.feed(worker::control_up{first}).messages(), 0);
  EXPECT_EQ(rank.machine.link(), worker_link::seeking);
  rank.wait(1s);
  ASSERT_EQ(rank.machine.link(), worker_link::dialing);
  EXPECT_EQ(rank.feed(worker::control_up{first}).messages(), 0);
  EXPECT_EQ(rank.machine.link(), worker_link::dialing);
  rank.feed(worker::control_down{first, "late"});
  EXPECT_EQ(rank.machine.link(), worker_link::dialing);
  rank.come_up();
  rank.feed(worker::received{
      first, {.sender = {0}, .sequence = 1, .body = schemas::welcome{incarnation, "amx_bf16"}}});
  EXPECT_EQ(rank.machine.link(), worker_link::joining);
}

TEST(WorkerLink, NothingIsHeardBeforeTheConnectionIsUp) {
  worker_driver rank;
  rank.to_dialing().hear(schemas::welcome{incarnation, "amx_bf16"});
  EXPECT_EQ(rank.machine.link(), worker_link::dialing);
}

TEST(WorkerLink, ASecondUpOfTheSameConnectionChangesNothing) {
  worker_driver rank;
  rank.to_welcomed();
  EXPECT_EQ(rank.feed(worker::control_up{rank.last_dial}).messages(), 0);
  EXPECT_EQ(rank.machine.link(), worker_link::welcomed);
}

TEST(WorkerLink, MessagesAreTakenInAscendingSequenceOnly) {
  worker_driver rank;
  rank.to_waiting();
  rank.hear_as({.sender = {0}, .sequence = 9, .body = schemas::prepare{epoch(1)}});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
  EXPECT_EQ(rank.machine.repeated_dropped(), 0U);
  for (const std::uint64_t sequence : {9U, 8U, 1U}) {
    rank.hear_as({.sender = {0}, .sequence = sequence, .body = schemas::epoch_ended{epoch(1), ""}});
    EXPECT_EQ(rank.machine.place(), worker_place::opening);
  }
  EXPECT_EQ(rank.machine.repeated_dropped(), 3U);
  rank.hear_as({.sender = {0}, .sequence = 10, .body = schemas::epoch_ended{epoch(1), ""}});
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
}

TEST(WorkerLink, OnlyTheLeaderIsHeard) {
  worker_driver rank;
  rank.to_joining();
  rank.hear_as({.sender = {1}, .sequence = 1, .body = schemas::welcome{incarnation, "amx_bf16"}});
  EXPECT_EQ(rank.machine.link(), worker_link::joining);
  EXPECT_EQ(rank.machine.repeated_dropped(), 1U);
}

TEST(WorkerLink, ANewConnectionCountsAnew) {
  worker_driver rank;
  rank.to_waiting();
  rank.hear_as({.sender = {0}, .sequence = 50, .body = schemas::welcome{incarnation, "amx_bf16"}});
  rank.feed(worker::control_down{rank.last_dial, "reset"}).wait(100ms);
  rank.come_up();
  EXPECT_EQ(all_of<worker::send>(rank.effects).at(0).message.sequence, 1U);
  rank.hear(schemas::welcome{incarnation, "amx_bf16"});
  EXPECT_EQ(rank.machine.link(), worker_link::welcomed);
}

TEST(WorkerLink, WhatOnlyAWorkerSaysIsCounted) {
  worker_driver rank;
  rank.to_waiting();
  rank.hear(description(0)).hear(schemas::loaded{}).hear(schemas::prepared{epoch(1), {}});
  rank.hear(schemas::connected{epoch(1)}).hear(schemas::loading_progress{});
  EXPECT_EQ(rank.machine.stale_dropped(), 5U);
  EXPECT_EQ(rank.machine.place(), worker_place::out);
}

TEST(WorkerLink, ARefusedRankAsksAgainSlowlyOnTheSameConnection) {
  worker_driver rank;
  rank.to_joining().hear(schemas::refusal{"rank 1 differs in max_model_len"});
  EXPECT_EQ(rank.machine.link(), worker_link::refused);
  EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 0);
  std::vector<milliseconds> pauses;
  for (int attempt = 0; attempt < 8; ++attempt) {
    const time_point before = rank.now;
    while (rank.machine.link() == worker_link::refused) rank.wait(1ms);
    EXPECT_EQ(rank.said<schemas::join_request>().size(), 1U);
    pauses.push_back(std::chrono::duration_cast<milliseconds>(rank.now - before));
    rank.hear(schemas::refusal{"rank 1 differs in max_model_len"});
  }
  EXPECT_GE(pauses.front(), worker_times::refused_first / 2);
  EXPECT_LE(pauses.front(), worker_times::refused_first * 3 / 2 + 1ms);
  EXPECT_GE(pauses.back(), worker_times::refused_last / 2);
}

TEST(WorkerLink, ARefusedRankGivesUpWithTheReason) {
  worker_driver rank;
  rank.to_joining();
  const time_point begun = rank.now;
  rank.hear(schemas::refusal{"first"});
  while (!rank.gave_up()) {
    rank.wait(100ms);
    if (!rank.said<schemas::join_request>().empty()) rank.hear(schemas::refusal{"the reason"});
  }
  EXPECT_EQ(rank.gave_up()->exit_code, 3);
  EXPECT_EQ(rank.gave_up()->reason, "the reason");
  EXPECT_GE(rank.now - begun, patience);
  EXPECT_LE(rank.now - begun, patience + 100ms);
  EXPECT_EQ(count_of<worker::hang_up>(rank.effects), 1);
  EXPECT_TRUE(rank.machine.over());
  EXPECT_TRUE(rank.feed(worker::timer{}).effects.empty());
  EXPECT_TRUE(rank.feed(worker::leader_at{"another", 1}).effects.empty());
}

TEST(WorkerLink, AWelcomeEndsThePatienceOfARefusal) {
  worker_driver rank;
  rank.to_waiting().hear(schemas::refusal{"a wrong share"});
  rank.hear(schemas::welcome{incarnation, "amx_bf16"});
  EXPECT_FALSE(rank.wait(2 * patience).gave_up());
}

TEST(WorkerLink, ARefusedRankGivesUpEvenWhenItsLeaderIsSilent) {
  worker_driver rank;
  rank.to_joining().hear(schemas::refusal{"the reason"}).wait(patience - 1ms);
  EXPECT_FALSE(rank.gave_up());
  rank.wait(1ms);
  ASSERT_TRUE(rank.gave_up());
  EXPECT_EQ(rank.gave_up()->exit_code, 3);
}

TEST(WorkerLink, PatienceOfARefusedRankBeginsWithItsFirstRefusal) {
  worker_driver rank;
  rank.to_joining().wait(patience - 1s).hear(schemas::refusal{"later"});
  EXPECT_FALSE(rank.wait(patience - 1ms).gave_up());
  EXPECT_TRUE(rank.wait(1ms).gave_up());
}

TEST(WorkerLink, ARefusalThatComesAfterAWelcomeKeepsItsClock) {
  // A wrong share is refused only after loading: welcome, loaded, refusal, over and over.
  worker_driver rank;
  rank.to_waiting().hear(schemas::refusal{"wrong share"});
  const time_point begun = rank.now;
  while (!rank.gave_up() && rank.now - begun < 2 * patience) {
    rank.wait(100ms);
    if (rank.said<schemas::join_request>().empty()) continue;
    rank.hear(schemas::welcome{incarnation, "amx_bf16"});
    EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U);
    rank.hear(schemas::refusal{"wrong share"});
  }
  ASSERT_TRUE(rank.gave_up());
  EXPECT_EQ(rank.gave_up()->exit_code, 3);
  EXPECT_LE(rank.now - begun, patience + 15s);
}

TEST(WorkerLink, AnEpochEndsTheClockOfARefusal) {
  worker_driver rank;
  rank.to_waiting().hear(schemas::refusal{"wrong"}).wait(patience - 1min);
  rank.hear(schemas::welcome{incarnation, "amx_bf16"}).hear(schemas::prepare{epoch(1)});
  ASSERT_EQ(rank.machine.place(), worker_place::opening);
  rank.hear(schemas::refusal{"wrong again"});
  EXPECT_FALSE(rank.wait(patience - 1ms).gave_up());
  EXPECT_TRUE(rank.wait(1ms).gave_up());
}

TEST(WorkerLink, AnEpochEndsTheBackOffOfARefusal) {
  worker_driver rank;
  rank.to_waiting();
  for (int attempt = 0; attempt < 8; ++attempt) rank.hear(schemas::refusal{"wrong"});
  rank.hear(schemas::welcome{incarnation, "amx_bf16"}).hear(schemas::prepare{epoch(1)});
  rank.hear(schemas::refusal{"wrong again"});
  EXPECT_FALSE(
      rank.wait(worker_times::refused_first * 3 / 2).said<schemas::join_request>().empty());
}

TEST(WorkerLink, ANewLeaderEndsTheClockOfARefusal) {
  worker_driver rank;
  rank.to_joining().hear(schemas::refusal{"of the old leader"}).wait(patience - 1min);
  rank.hear(schemas::welcome{incarnation + 1, "amx_bf16"}).hear(schemas::refusal{"of the new"});
  EXPECT_FALSE(rank.wait(patience - 1ms).gave_up());
  EXPECT_TRUE(rank.wait(1ms).gave_up());
}

TEST(WorkerLink, GivesUpWhenThereIsNoLeader) {
  worker_driver rank;
  rank.to_dialing();
  const time_point begun = rank.now;
  rank.feed(worker::control_down{rank.last_dial, "no route to host"});
  while (!rank.gave_up()) {
    rank.wait(100ms);
    if (count_of<worker::dial>(rank.effects) > 0) {
      rank.feed(worker::control_down{rank.last_dial, "no route to host"});
    }
  }
  EXPECT_EQ(rank.gave_up()->exit_code, 4);
  EXPECT_THAT(rank.gave_up()->reason, AllOf(HasSubstr("600 s"), HasSubstr("no route to host")));
  EXPECT_GE(rank.now - begun, patience);
  EXPECT_LE(rank.now - begun, patience + 200ms);
}

TEST(WorkerLink, GivesUpWhenNobodyTellsWhereTheLeaderIs) {
  worker_driver rank;
  EXPECT_FALSE(rank.to_started().wait(patience - 1ms).gave_up());
  ASSERT_TRUE(rank.wait(1ms).gave_up());
  EXPECT_EQ(rank.gave_up()->exit_code, 4);
}

TEST(WorkerLink, GivesUpWhenItsPatienceEndsAndNotAtItsNextLine) {
  worker_driver rank({.self = description(1), .world_size = 2, .patience = 605s});
  EXPECT_FALSE(rank.to_started().wait(605s - 1ms).gave_up());
  EXPECT_TRUE(rank.wait(1ms).gave_up());
}

TEST(WorkerLink, HasPatienceWithAWelcomingLeader) {
  worker_driver rank;
  rank.to_waiting();
  EXPECT_FALSE(rank.wait(10 * patience).gave_up());
  // A new search has its own patience.
  rank.feed(worker::control_down{rank.last_dial, "reset"});
  EXPECT_FALSE(rank.wait(patience - 1ms).gave_up());
  EXPECT_TRUE(rank.wait(1ms).gave_up());
}

TEST(WorkerLink, AConnectionThatComesAndGoesDoesNotProlongTheSearch) {
  worker_driver rank;
  rank.to_dialing();
  const time_point begun = rank.now;
  while (!rank.gave_up() && rank.now - begun < 2 * patience) {
    if (rank.machine.link() == worker_link::dialing) {
      rank.come_up().feed(worker::control_down{rank.last_dial, "reset"});
    }
    rank.wait(100ms);
  }
  EXPECT_LE(rank.now - begun, patience + 200ms);
}

TEST(WorkerLink, ALostConnectionEndsTheEpochAndIsDialedAgain) {
  worker_driver rank;
  rank.to_serving();
  rank.feed(worker::control_down{rank.last_dial, "reset"});
  EXPECT_EQ(rank.machine.link(), worker_link::seeking);
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(rank.messages(), 0);  // there is nobody to tell
  EXPECT_EQ(count_of<worker::dial>(rank.wait(100ms).effects), 1);
  EXPECT_EQ(rank.machine.weights(), worker_weights::packed);
}

TEST(WorkerLink, ALostConnectionIsNotAskedOnAnyMore) {
  worker_driver rank;
  rank.to_joining().feed(worker::control_down{rank.last_dial, "reset"});
  rank.feed(worker::leader_unknown{});
  EXPECT_EQ(rank.wait(10s).messages(), 0);
}

TEST(WorkerLink, ShowsItsPhaseWhenItChangesAndEveryTenSeconds) {
  using schemas::rank_phase;
  const auto phases = [](const worker_driver& rank) {
    std::vector<rank_phase> found;
    for (const auto& one : all_of<worker::phase>(rank.effects)) found.push_back(one.phase);
    return found;
  };
  using list = std::vector<rank_phase>;
  worker_driver rank;
  EXPECT_EQ(phases(rank.to_started()), list{rank_phase::seeking_leader});
  EXPECT_EQ(phases(rank.feed(worker::leader_at{"leader", 8472})), list{});
  EXPECT_EQ(phases(rank.come_up()), list{});
  EXPECT_EQ(phases(rank.wait(9999ms)), list{});
  EXPECT_EQ(phases(rank.wait(1ms)), list{rank_phase::seeking_leader});
  EXPECT_EQ(phases(rank.hear(schemas::welcome{incarnation, "amx_bf16"})),
            list{rank_phase::loading});
  EXPECT_EQ(phases(rank.wait(9999ms)), list{});
  EXPECT_EQ(phases(rank.wait(1ms)), list{rank_phase::loading});
  EXPECT_EQ(phases(rank.wait(20s)), (list{rank_phase::loading, rank_phase::loading}));
  EXPECT_EQ(phases(rank.feed(worker::weights_loaded{rank.last_load, {}})),
            list{rank_phase::waiting_for_ranks});
  EXPECT_EQ(phases(rank.hear(schemas::prepare{epoch(1)})), list{rank_phase::connecting});
  rank.feed(worker::plane_opened{epoch(1), {}}).hear(schemas::connect{epoch(1), {{}, {}}});
  rank.feed(worker::plane_connected{epoch(1)});
  EXPECT_EQ(phases(rank), list{rank_phase::serving});
  EXPECT_EQ(all_of<worker::phase>(rank.effects)[0].epoch, epoch(1));
  EXPECT_EQ(phases(rank.wait(1min)), list{});
  EXPECT_EQ(phases(rank.feed(worker::rank_lost{{0}, "gone", 0})), list{rank_phase::connecting});
  EXPECT_EQ(all_of<worker::phase>(rank.effects)[0].epoch, base::epoch_id{});
  EXPECT_EQ(phases(rank.feed(worker::loop_ended{epoch(1), ""})),
            list{rank_phase::waiting_for_ranks});
  EXPECT_EQ(phases(rank.hear(schemas::prepare{epoch(2)})), list{rank_phase::connecting});
  EXPECT_EQ(phases(rank.feed(worker::drain{60000})), list{rank_phase::draining});
}

TEST(WorkerLink, EachPhaseHasALineThatSaysWhatItWaitsFor) {
  const auto line = [](const worker_driver& rank) {
    const auto lines = all_of<worker::log>(rank.effects);
    const auto phases = all_of<worker::phase>(rank.effects);
    if (lines.empty() || phases.empty()) return std::string();
    EXPECT_EQ(lines.back().line, "rank 1 " + phases.back().detail);
    return lines.back().line;
  };
  worker_driver rank;
  EXPECT_THAT(line(rank.to_started()),
              HasSubstr("waits to be told where the leader is: it has just started"));
  rank.feed(worker::leader_at{"leader", 8472});
  rank.feed(worker::control_down{rank.last_dial, "no route"});
  rank.wait(100ms);
  EXPECT_THAT(line(rank.wait(10s)), HasSubstr("looks for the leader at leader:8472: no route"));
  rank.come_up();
  EXPECT_THAT(line(rank.hear(schemas::refusal{"rank 1 differs"})),
              HasSubstr("is refused, asks again: rank 1 differs"));
  EXPECT_EQ(line(rank.hear(schemas::refusal{"rank 1 differs"})), "");
  EXPECT_THAT(line(rank.hear(schemas::refusal{"rank 1 differs in more"})), HasSubstr("in more"));
  rank.feed(worker::load_progress{rank.last_load, 3'100'000'000, 9'900'000'000});
  EXPECT_THAT(line(rank.hear(schemas::welcome{incarnation, "amx_bf16"})),
              HasSubstr("loads its weights for amx_bf16: 3.1 of 9.9 GB"));
  EXPECT_THAT(line(rank.feed(worker::weights_loaded{rank.last_load, {}})),
              HasSubstr("waits for the other ranks"));
  EXPECT_THAT(line(rank.hear(schemas::prepare{epoch(5)})), HasSubstr("for epoch 5"));
  rank.feed(worker::plane_opened{epoch(5), {}}).hear(schemas::connect{epoch(5), {{}, {}}});
  EXPECT_THAT(line(rank.feed(worker::plane_connected{epoch(5)})), HasSubstr("serves in epoch 5"));
  EXPECT_THAT(line(rank.feed(worker::rank_lost{{0}, "killed by signal 9", 0})),
              HasSubstr("leaves epoch 5: rank 0 is lost: killed by signal 9"));
  EXPECT_THAT(line(rank.feed(worker::drain{1000})), HasSubstr("ends what is open"));
}

TEST(WorkerLink, SaysThatTheLeaderIsGone) {
  worker_driver rank;
  rank.to_welcomed().feed(worker::leader_unknown{});
  EXPECT_THAT(all_of<worker::phase>(rank.effects).at(0).detail, HasSubstr("the leader is gone"));
}

}  // namespace
}  // namespace troupe::actors
