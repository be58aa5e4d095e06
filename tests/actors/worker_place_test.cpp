// The worker in its epochs, and its weights.
#include <gmock/gmock.h>

#include "tests/actors/worker_driver.hpp"

namespace troupe::actors {
namespace {

using testing::HasSubstr;

TEST(WorkerWeights, SaysThatItIsLoadedOnceWelcomed) {
  worker_driver rank;
  rank.to_joining().feed(worker::weights_loaded{rank.last_load, {4}});
  EXPECT_EQ(rank.messages(), 0);
  rank.hear(schemas::welcome{incarnation, "amx_bf16"});
  const auto said = rank.said<schemas::loaded>();
  ASSERT_EQ(said.size(), 1U);
  EXPECT_EQ(said[0].share_digest[0], 4);
  EXPECT_EQ(said[0].instruction_path, "amx_bf16");
}

TEST(WorkerWeights, SaysItAgainUntilItIsPrepared) {
  worker_driver rank;
  rank.to_waiting();
  EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U);
  EXPECT_TRUE(rank.wait(worker_times::resend - 1ms).said<schemas::loaded>().empty());
  EXPECT_EQ(rank.wait(1ms).said<schemas::loaded>().size(), 1U);
  EXPECT_EQ(rank.wait(5 * worker_times::resend).said<schemas::loaded>().size(), 5U);
  rank.hear(schemas::prepare{epoch(1)});
  EXPECT_TRUE(rank.wait(5s).said<schemas::loaded>().empty());
}

TEST(WorkerWeights, LoadsAgainForACommonPath) {
  worker_driver rank;
  rank.to_joining().feed(worker::weights_loaded{rank.last_load, {4}});
  const std::uint64_t first = rank.last_load;
  rank.hear(schemas::welcome{incarnation, "avx2"});
  ASSERT_EQ(count_of<worker::load>(rank.effects), 1);
  EXPECT_EQ(all_of<worker::load>(rank.effects)[0].instruction_path, "avx2");
  EXPECT_EQ(rank.messages(), 0);
  EXPECT_EQ(rank.machine.weights(), worker_weights::loading);
  // The replaced load is not the one that counts.
  rank.feed(worker::weights_loaded{first, {4}});
  EXPECT_EQ(rank.machine.weights(), worker_weights::loading);
  rank.feed(worker::load_failed{
      first, {.code = base::error_code::cancelled, .message = "", .origin = ""}});
  EXPECT_FALSE(rank.gave_up());
  rank.feed(worker::weights_loaded{rank.last_load, {5}});
  EXPECT_EQ(rank.said<schemas::loaded>().at(0).instruction_path, "avx2");
  // Said again, the welcome changes nothing.
  rank.hear(schemas::welcome{incarnation, "avx2"});
  EXPECT_EQ(count_of<worker::load>(rank.effects), 0);
}

TEST(WorkerWeights, AnotherPathEndsTheEpochFirst) {
  worker_driver rank;
  rank.to_serving().hear(schemas::welcome{incarnation, "avx2"});
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1);
  EXPECT_EQ(count_of<worker::load>(rank.effects), 1);
}

TEST(WorkerWeights, RefusesAPathThatItDoesNotHave) {
  worker_driver rank;
  rank.to_joining().hear(schemas::welcome{incarnation, "neon"});
  EXPECT_EQ(rank.machine.link(), worker_link::refused);
  EXPECT_EQ(count_of<worker::load>(rank.effects), 0);
  EXPECT_THAT(all_of<worker::phase>(rank.effects).at(0).detail, HasSubstr("neon"));
}

TEST(WorkerWeights, TellsHowFarItIsOnceASecond) {
  worker_driver rank;
  rank.to_joining();
  EXPECT_EQ(rank.feed(worker::load_progress{rank.last_load, 1, 10}).messages(), 0);
  rank.hear(schemas::welcome{incarnation, "amx_bf16"});
  rank.feed(worker::load_progress{rank.last_load, 2, 10});
  ASSERT_EQ(rank.said<schemas::loading_progress>().size(), 1U);
  EXPECT_EQ(rank.said<schemas::loading_progress>()[0].bytes, 2U);
  EXPECT_EQ(rank.said<schemas::loading_progress>()[0].total_bytes, 10U);
  rank.wait(999ms);
  EXPECT_EQ(rank.feed(worker::load_progress{rank.last_load, 3, 10}).messages(), 0);
  rank.wait(1ms);
  EXPECT_EQ(rank.feed(worker::load_progress{rank.last_load, 4, 10}).messages(), 1);
  rank.wait(1s);
  EXPECT_EQ(rank.feed(worker::load_progress{rank.last_load - 1, 5, 10}).messages(), 0);
}

TEST(WorkerWeights, AnotherLoadBeginsAtNothing) {
  worker_driver rank;
  rank.to_joining().feed(worker::load_progress{rank.last_load, 3'000'000'000, 9'000'000'000});
  rank.hear(schemas::welcome{incarnation, "avx2"});
  EXPECT_THAT(all_of<worker::phase>(rank.effects).at(0).detail, HasSubstr("avx2: 0.0 of 0.0 GB"));
}

TEST(WorkerWeights, TriesAgainWhatMayWorkLater) {
  worker_driver rank;
  rank.to_welcomed();
  const base::error later{.code = base::error_code::unavailable,
                          .message = "weights.safetensors: stale file handle",
                          .origin = "models",
                          .retryable = true};
  std::vector<milliseconds> pauses;
  for (int attempt = 0; attempt < 8; ++attempt) {
    rank.feed(worker::load_failed{rank.last_load, later});
    EXPECT_FALSE(rank.gave_up());
    EXPECT_THAT(all_of<worker::log>(rank.effects).at(0).line, HasSubstr("stale file handle"));
    EXPECT_EQ(rank.machine.weights(), worker_weights::none);
    const time_point before = rank.now;
    while (rank.machine.weights() == worker_weights::none) rank.wait(1ms);
    EXPECT_EQ(all_of<worker::load>(rank.effects).at(0).instruction_path, "amx_bf16");
    pauses.push_back(std::chrono::duration_cast<milliseconds>(rank.now - before));
  }
  EXPECT_LE(pauses.front(), worker_times::load_again_first * 3 / 2 + 1ms);
  EXPECT_GE(pauses.back(), worker_times::load_again_last / 2);
  // Once it has worked, the pauses begin small again.
  rank.feed(worker::weights_loaded{rank.last_load, {}}).hear(schemas::welcome{incarnation, "avx2"});
  rank.feed(worker::load_failed{rank.last_load, later});
  EXPECT_EQ(count_of<worker::load>(rank.wait(1500ms).effects), 1);
}

TEST(WorkerWeights, ANewPathReplacesTheOneToBeTriedAgain) {
  worker_driver rank;
  rank.to_welcomed().feed(worker::load_failed{
      rank.last_load,
      {.code = base::error_code::unavailable, .message = "", .origin = "", .retryable = true}});
  rank.hear(schemas::welcome{incarnation, "avx2"});
  EXPECT_EQ(count_of<worker::load>(rank.effects), 1);
  EXPECT_EQ(count_of<worker::load>(rank.wait(1min).effects), 0);
}

TEST(WorkerWeights, GivesUpOverWhatNeverWorks) {
  using base::error_code;
  const std::vector<std::pair<error_code, int>> table = {
      {error_code::invalid_argument, 3},   {error_code::not_found, 3},
      {error_code::unimplemented, 3},      {error_code::data_loss, 3},
      {error_code::resource_exhausted, 1}, {error_code::internal, 1},
  };
  for (const auto& [code, exit_code] : table) {
    worker_driver rank;
    rank.to_welcomed().feed(
        worker::load_failed{rank.last_load, {.code = code, .message = "why", .origin = ""}});
    ASSERT_TRUE(rank.gave_up()) << static_cast<int>(code);
    EXPECT_EQ(rank.gave_up()->exit_code, exit_code) << static_cast<int>(code);
    EXPECT_EQ(rank.gave_up()->reason, "why");
    EXPECT_TRUE(std::holds_alternative<worker::give_up>(rank.effects.back()));
  }
}

// --- into an epoch ------------------------------------------------------------------------------

TEST(WorkerPlace, OpensItsPlaneWhenPrepared) {
  worker_driver rank;
  rank.to_opening(3);
  ASSERT_EQ(count_of<worker::open_plane>(rank.effects), 1);
  EXPECT_EQ(all_of<worker::open_plane>(rank.effects)[0].epoch, epoch(3));
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
  EXPECT_EQ(rank.machine.epoch(), epoch(3));
  // The leader asks again: there is nothing to say yet.
  rank.hear(schemas::prepare{epoch(3)});
  EXPECT_TRUE(rank.effects.empty());
}

TEST(WorkerPlace, TellsItsAddressAndTellsItAgainWhenAsked) {
  worker_driver rank;
  rank.to_opened(3);
  for (int time = 0; time < 2; ++time) {
    const auto said = rank.said<schemas::prepared>();
    ASSERT_EQ(said.size(), 1U);
    EXPECT_EQ(said[0].epoch, epoch(3));
    EXPECT_EQ(said[0].address, (std::vector<std::uint8_t>{1, 2}));
    EXPECT_EQ(count_of<worker::open_plane>(rank.effects), 0);
    rank.hear(schemas::prepare{epoch(3)});
  }
}

TEST(WorkerPlace, ConnectsToTheAddressesGiven) {
  worker_driver rank;
  rank.to_connecting(3);
  const auto orders = all_of<worker::connect_plane>(rank.effects);
  ASSERT_EQ(orders.size(), 1U);
  EXPECT_EQ(orders[0].epoch, epoch(3));
  EXPECT_EQ(orders[0].addresses, (std::vector<std::vector<std::uint8_t>>{{7}, {8}}));
  EXPECT_EQ(rank.machine.place(), worker_place::connecting);
  // Asked again it has nothing to say yet, neither to a prepare.
  EXPECT_TRUE(rank.hear(schemas::connect{epoch(3), {{7}, {8}}}).effects.empty());
  EXPECT_TRUE(rank.hear(schemas::prepare{epoch(3)}).effects.empty());
}

TEST(WorkerPlace, StartsItsLoopAndSaysSoAgainWhenAsked) {
  worker_driver rank;
  rank.to_serving(3);
  ASSERT_EQ(count_of<worker::start_loop>(rank.effects), 1);
  EXPECT_EQ(all_of<worker::start_loop>(rank.effects)[0].epoch, epoch(3));
  EXPECT_EQ(rank.machine.place(), worker_place::serving);
  EXPECT_EQ(rank.said<schemas::connected>().at(0).epoch, epoch(3));
  rank.hear(schemas::connect{epoch(3), {{7}, {8}}});
  EXPECT_EQ(rank.said<schemas::connected>().size(), 1U);
  EXPECT_EQ(count_of<worker::connect_plane>(rank.effects), 0);
}

TEST(WorkerPlace, RefusesATableOfTheWrongSize) {
  worker_driver rank;
  rank.to_opened().hear(schemas::connect{epoch(1), {{7}}});
  EXPECT_EQ(count_of<worker::connect_plane>(rank.effects), 0);
  EXPECT_THAT(rank.said<schemas::epoch_ended>().at(0).reason, HasSubstr("1 addresses for 2 ranks"));
  EXPECT_EQ(rank.machine.place(), worker_place::out);
}

TEST(WorkerPlace, IgnoresAConnectWithoutAPrepare) {
  worker_driver rank;
  rank.to_waiting().hear(schemas::connect{epoch(1), {{7}, {8}}});
  EXPECT_TRUE(rank.effects.empty());
  rank.hear(schemas::prepare{epoch(1)}).hear(schemas::connect{epoch(1), {{7}, {8}}});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
  rank.feed(worker::plane_opened{epoch(1), {}}).hear(schemas::connect{epoch(2), {{7}, {8}}});
  EXPECT_EQ(rank.machine.place(), worker_place::opened);
}

TEST(WorkerPlace, IsNotPreparedWhileItLoads) {
  worker_driver rank;
  rank.to_welcomed().hear(schemas::prepare{epoch(1)});
  EXPECT_EQ(rank.machine.place(), worker_place::out);
  EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).epoch, epoch(1));
  EXPECT_EQ(count_of<worker::open_plane>(rank.effects), 0);
}

TEST(WorkerPlace, AnEpochNeedsAWelcome) {
  for (const bool refused : {false, true}) {
    worker_driver rank;
    rank.to_waiting().feed(worker::control_down{rank.last_dial, "reset"}).wait(100ms).come_up();
    if (refused) rank.hear(schemas::refusal{"no"});
    rank.hear(schemas::prepare{epoch(1)});
    EXPECT_EQ(rank.machine.place(), worker_place::out);
    EXPECT_EQ(rank.messages(), 0);
    EXPECT_EQ(rank.machine.stale_dropped(), 1U);
  }
}

TEST(WorkerPlace, DropsEpochsOfAnotherIncarnation) {
  worker_driver rank;
  rank.to_waiting().hear(schemas::prepare{epoch(1, 5)});
  EXPECT_EQ(rank.machine.place(), worker_place::out);
  EXPECT_EQ(rank.messages(), 0);
  rank.hear(schemas::prepare{epoch(1)}).feed(worker::plane_opened{epoch(1), {}});
  rank.hear(schemas::connect{epoch(1, 5), {{7}, {8}}});
  EXPECT_EQ(rank.machine.place(), worker_place::opened);
  rank.hear(schemas::epoch_ended{epoch(1, 5), "old"});
  EXPECT_EQ(rank.machine.place(), worker_place::opened);
  EXPECT_EQ(rank.machine.stale_dropped(), 3U);
}

// --- out of an epoch ----------------------------------------------------------------------------

struct leaving_case {
  const char* name;
  worker_driver& (worker_driver::*reach)(std::uint64_t);
  bool host_busy;
  worker::event completion;
};

std::vector<leaving_case> leaving_cases() {
  const base::epoch_id at = epoch(4);
  return {
      {"opening, opens", &worker_driver::to_opening, true, worker::plane_opened{at, {}}},
      {"opening, fails", &worker_driver::to_opening, true, worker::plane_failed{at, ""}},
      {"opened", &worker_driver::to_opened, false, worker::timer{}},
      {"connecting, connects", &worker_driver::to_connecting, true, worker::plane_connected{at}},
      {"connecting, fails", &worker_driver::to_connecting, true, worker::plane_failed{at, ""}},
      {"serving", &worker_driver::to_serving, true, worker::loop_ended{at, ""}},
  };
}

TEST(WorkerPlace, LeavesFromEveryPlaceAndWaitsForItsHost) {
  for (const leaving_case& row : leaving_cases()) {
    worker_driver rank;
    (rank.*row.reach)(4);
    rank.feed(worker::rank_lost{{0}, "killed", 0});
    ASSERT_EQ(count_of<worker::abort_plane>(rank.effects), 1) << row.name;
    EXPECT_EQ(all_of<worker::abort_plane>(rank.effects)[0].epoch, epoch(4)) << row.name;
    EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).epoch, epoch(4)) << row.name;
    EXPECT_THAT(rank.said<schemas::epoch_ended>()[0].reason, HasSubstr("rank 0 is lost: killed"));
    if (row.host_busy) {
      EXPECT_EQ(rank.machine.place(), worker_place::leaving) << row.name;
      EXPECT_TRUE(rank.said<schemas::loaded>().empty()) << row.name;
      rank.feed(row.completion);
    }
    EXPECT_EQ(rank.machine.place(), worker_place::out) << row.name;
    EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U) << row.name;
    EXPECT_TRUE(rank.said<schemas::prepared>().empty()) << row.name;
    EXPECT_TRUE(rank.said<schemas::connected>().empty()) << row.name;
    EXPECT_EQ(count_of<worker::start_loop>(rank.effects), 0) << row.name;
  }
}

TEST(WorkerPlace, LeavesOnceOnly) {
  worker_driver rank;
  rank.to_serving().feed(worker::rank_lost{{0}, "killed", 0});
  rank.feed(worker::rank_lost{{0}, "killed", 0});
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 0);
  rank.hear(schemas::epoch_ended{epoch(1), ""});
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 0);
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(rank.feed(worker::loop_ended{epoch(1), ""}).said<schemas::loaded>().size(), 1U);
  rank.feed(worker::rank_lost{{0}, "killed", 0});
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 0);
}

TEST(WorkerPlace, LeavesWhenTheLeaderEndsTheEpoch) {
  worker_driver rank;
  rank.to_serving(4).hear(schemas::epoch_ended{epoch(4), "rank 3 is lost"});
  EXPECT_EQ(all_of<worker::abort_plane>(rank.effects).at(0).reason, "rank 3 is lost");
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
}

TEST(WorkerPlace, DropsTheEndOfAnEpochThatItIsNotIn) {
  worker_driver rank;
  rank.to_waiting().hear(schemas::epoch_ended{epoch(4), ""});
  EXPECT_EQ(rank.machine.stale_dropped(), 1U);
  EXPECT_EQ(rank.messages(), 0);
  rank.hear(schemas::prepare{epoch(4)}).hear(schemas::epoch_ended{epoch(3), ""});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
  rank.hear(schemas::epoch_ended{base::epoch_id{}, ""});
  rank.hear(schemas::epoch_ended{epoch(4, 5), ""});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
  EXPECT_EQ(rank.machine.stale_dropped(), 4U);
}

TEST(WorkerPlace, TheEndOfANewerEpochEndsTheOneItIsIn) {
  // Its own end was lost, and so was the newer one's beginning.
  worker_driver rank;
  rank.to_opened(4).hear(schemas::epoch_ended{epoch(6), "a rank is lost"});
  EXPECT_EQ(rank.machine.place(), worker_place::out);
  EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U);
}

TEST(WorkerPlace, TellsTheLeaderWhatFailed) {
  const std::vector<leaving_case> failures = {
      {"open", &worker_driver::to_opening, true, worker::plane_failed{epoch(4), "no memory"}},
      {"connect", &worker_driver::to_connecting, true, worker::plane_failed{epoch(4), "no memory"}},
      {"loop", &worker_driver::to_serving, true, worker::loop_ended{epoch(4), "no memory"}},
  };
  for (const leaving_case& row : failures) {
    worker_driver rank;
    (rank.*row.reach)(4);
    rank.feed(row.completion);
    EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).reason, "no memory") << row.name;
    EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1) << row.name;
    EXPECT_EQ(rank.machine.place(), worker_place::out) << row.name;
    EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U) << row.name;
  }
}

TEST(WorkerPlace, CompletionsOfAnotherEpochAreNothing) {
  const std::vector<worker::event> others = {
      worker::plane_opened{epoch(3), {}}, worker::plane_connected{epoch(3)},
      worker::plane_failed{epoch(3), ""}, worker::loop_ended{epoch(3), ""}};
  for (const auto reach : {&worker_driver::to_opening, &worker_driver::to_connecting,
                           &worker_driver::to_serving, &worker_driver::to_opened}) {
    worker_driver rank;
    (rank.*reach)(4);
    const worker_place before = rank.machine.place();
    for (const worker::event& event : others) {
      EXPECT_TRUE(rank.feed(event).effects.empty());
      EXPECT_EQ(rank.machine.place(), before);
    }
  }
}

TEST(WorkerPlace, ALeaderThatAsksForALeftEpochIsToldSo) {
  worker_driver rank;
  rank.to_serving(4).feed(worker::loop_ended{epoch(4), "broken"});
  for (const std::uint64_t old : {4U, 3U}) {
    rank.hear(schemas::prepare{epoch(old)});
    EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).epoch, epoch(old));
    EXPECT_EQ(rank.machine.place(), worker_place::out);
    rank.hear(schemas::connect{epoch(old), {{7}, {8}}});
    EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).epoch, epoch(old));
  }
  EXPECT_EQ(rank.machine.stale_dropped(), 4U);
  rank.hear(schemas::prepare{epoch(5)});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
}

TEST(WorkerPlace, OnlyALeaderThatHasWelcomedItIsToldOfALeftEpoch) {
  worker_driver rank;
  rank.to_serving(4).feed(worker::loop_ended{epoch(4), "broken"});
  rank.feed(worker::control_down{rank.last_dial, "reset"}).wait(100ms).come_up();
  rank.hear(schemas::prepare{epoch(4)});
  EXPECT_EQ(rank.messages(), 0);
  EXPECT_EQ(rank.machine.stale_dropped(), 1U);
}

TEST(WorkerPlace, WhileItLeavesAndLoadsItAnswersNoPrepare) {
  worker_driver rank;
  rank.to_serving(4).hear(schemas::welcome{incarnation, "avx2"});
  rank.hear(schemas::prepare{epoch(5)});
  EXPECT_TRUE(rank.effects.empty());
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
}

TEST(WorkerPlace, WhileItLeavesItIsAlreadyOut) {
  worker_driver rank;
  rank.to_serving(4).feed(worker::rank_lost{{0}, "killed", 0});
  rank.hear(schemas::prepare{epoch(4)});
  EXPECT_EQ(rank.said<schemas::epoch_ended>().size(), 1U);
  rank.hear(schemas::prepare{epoch(5)});  // asked again, it will go
  EXPECT_TRUE(rank.effects.empty());
  rank.feed(worker::loop_ended{epoch(4), ""}).hear(schemas::prepare{epoch(5)});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
}

TEST(WorkerPlace, AnOlderEpochThanTheCurrentOneIsStale) {
  worker_driver rank;
  rank.to_serving(4).hear(schemas::prepare{epoch(3)});
  EXPECT_EQ(rank.machine.place(), worker_place::serving);
  EXPECT_EQ(rank.machine.stale_dropped(), 1U);
}

TEST(WorkerPlace, ANewerEpochEndsTheCurrentOne) {
  worker_driver rank;
  rank.to_serving(4).hear(schemas::prepare{epoch(5)});
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(rank.said<schemas::epoch_ended>().at(0).epoch, epoch(4));
}

TEST(WorkerPlace, ANewLeaderFindsTheWeightsPacked) {
  worker_driver rank;
  rank.to_serving(4).feed(worker::control_down{rank.last_dial, "reset"});
  rank.feed(worker::loop_ended{epoch(4), ""}).wait(100ms).come_up();
  rank.hear(schemas::welcome{incarnation + 1, "amx_bf16"});
  EXPECT_EQ(count_of<worker::load>(rank.effects), 0);
  EXPECT_EQ(rank.said<schemas::loaded>().size(), 1U);
  // Its epochs count from the beginning.
  rank.hear(schemas::prepare{epoch(1, incarnation + 1)});
  EXPECT_EQ(rank.machine.place(), worker_place::opening);
}

TEST(WorkerPlace, TheSameLeaderGoesOnCounting) {
  worker_driver rank;
  rank.to_serving(4).feed(worker::control_down{rank.last_dial, "reset"});
  rank.feed(worker::loop_ended{epoch(4), ""}).wait(100ms).come_up();
  rank.hear(schemas::welcome{incarnation, "amx_bf16"}).hear(schemas::prepare{epoch(4)});
  EXPECT_EQ(rank.machine.place(), worker_place::out);
}

TEST(WorkerPlace, AnotherIncarnationEndsTheEpoch) {
  worker_driver rank;
  rank.to_serving(4).hear(schemas::welcome{incarnation + 1, "amx_bf16"});
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(count_of<worker::load>(rank.effects), 0);
}

TEST(WorkerPlace, ARefusalEndsTheEpoch) {
  worker_driver rank;
  rank.to_serving().hear(schemas::refusal{"no"});
  EXPECT_EQ(rank.machine.place(), worker_place::leaving);
  EXPECT_EQ(rank.messages(), 0);
  rank.feed(worker::loop_ended{epoch(1), ""});
  EXPECT_EQ(rank.messages(), 0);
  EXPECT_FALSE(rank.wait(2s).said<schemas::join_request>().empty());
}

// --- the end ------------------------------------------------------------------------------------

TEST(WorkerDrain, EndsAtOnceWhenItIsOut) {
  worker_driver rank;
  rank.to_waiting().feed(worker::drain{60'000});
  ASSERT_TRUE(rank.gave_up());
  EXPECT_EQ(rank.gave_up()->exit_code, 0);
  EXPECT_EQ(count_of<worker::give_up>(rank.effects), 1);
  EXPECT_TRUE(std::holds_alternative<worker::give_up>(rank.effects.back()));
}

TEST(WorkerDrain, ServesUntilTheLeaderEndsTheEpoch) {
  worker_driver rank;
  rank.to_serving().feed(worker::drain{60'000});
  EXPECT_EQ(rank.machine.place(), worker_place::serving);
  EXPECT_FALSE(rank.wait(59s).gave_up());
  rank.hear(schemas::epoch_ended{epoch(1), "drained"});
  EXPECT_FALSE(rank.gave_up());
  ASSERT_TRUE(rank.feed(worker::loop_ended{epoch(1), ""}).gave_up());
  EXPECT_EQ(rank.gave_up()->exit_code, 0);
}

TEST(WorkerDrain, LeavesWhenItsTimeIsOver) {
  worker_driver rank;
  rank.to_serving().feed(worker::drain{60'000}).wait(60s);
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1);
  EXPECT_TRUE(rank.feed(worker::loop_ended{epoch(1), ""}).gave_up());
}

TEST(WorkerDrain, DoesNotFinishToForm) {
  worker_driver rank;
  rank.to_connecting().feed(worker::drain{60'000});
  EXPECT_EQ(count_of<worker::abort_plane>(rank.effects), 1);
  EXPECT_TRUE(rank.feed(worker::plane_failed{epoch(1), "aborted"}).gave_up());
}

TEST(WorkerEnd, ALoadThatHasEndedEndsOnce) {
  worker_driver rank;
  rank.to_serving().feed(worker::load_failed{
      rank.last_load, {.code = base::error_code::internal, .message = "", .origin = ""}});
  EXPECT_TRUE(rank.effects.empty());
  EXPECT_TRUE(rank.feed(worker::load_progress{rank.last_load, 1, 2}).effects.empty());
}

TEST(WorkerEnd, NothingComesAfterItsEndWhateverIsDue) {
  worker_driver rank;
  rank.to_joining();
  rank.now += 5s;  // its timer is late
  rank.feed(worker::load_failed{rank.last_load,
                                {.code = base::error_code::internal, .message = "", .origin = ""}});
  ASSERT_TRUE(rank.gave_up());
  EXPECT_TRUE(std::holds_alternative<worker::give_up>(rank.effects.back()));
}

TEST(WorkerPlace, AWelcomeThatIsRepeatedInAnEpochChangesNothing) {
  worker_driver rank;
  rank.to_serving().hear(schemas::welcome{incarnation, "amx_bf16"});
  EXPECT_EQ(rank.messages(), 0);
  EXPECT_EQ(rank.machine.place(), worker_place::serving);
}

TEST(WorkerEnd, ASilentGangNeedsNoTimer) {
  worker_driver rank;
  rank.to_serving();
  EXPECT_EQ(count_of<worker::wake_at>(rank.effects), 0);
  rank.wake_at.reset();
  rank.feed(worker::timer{});
  EXPECT_EQ(count_of<worker::wake_at>(rank.effects), 0);
}

TEST(WorkerEnd, ATimerThatCameEarlyIsSetAgain) {
  worker_driver rank;
  rank.to_joining();
  const auto first = all_of<worker::wake_at>(rank.effects);
  ASSERT_EQ(first.size(), 1U);
  rank.feed(worker::timer{});
  ASSERT_EQ(count_of<worker::wake_at>(rank.effects), 1);
  EXPECT_EQ(all_of<worker::wake_at>(rank.effects)[0].when, first[0].when);
  // What changes no deadline sets no timer.
  rank.feed(worker::load_progress{rank.last_load, 1, 2});
  EXPECT_EQ(count_of<worker::wake_at>(rank.effects), 0);
}

}  // namespace
}  // namespace troupe::actors
