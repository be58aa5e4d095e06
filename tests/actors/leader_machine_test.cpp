// The leader machine by table: one claim a test.
#include "actors/leader/leader_machine.hpp"

#include <gtest/gtest.h>

#include "tests/actors/leader_driver.hpp"

namespace troupe::actors {
namespace {

using namespace std::chrono_literals;

TEST(LeaderMachine, ProvesAnEpochWithOneRealStepBeforeItIsReady) {
  leader_driver leader;
  leader.tell(leader_event::epoch_began{epoch_1});
  ASSERT_EQ(leader.count<leader_effect::start>(), 1U);
  const schemas::sequence_log canary = leader.last<leader_effect::start>().log;
  EXPECT_EQ(canary.params.temperature, 0.0F);
  EXPECT_EQ(canary.params.max_tokens, 1);
  EXPECT_TRUE(canary.params.ignore_eos);
  EXPECT_EQ(canary.prompt_ids, std::vector{leader_options{}.canary_token_id});
  EXPECT_TRUE(canary.scope.none);
  EXPECT_EQ(leader.count<leader_effect::step>(), 1U);
  EXPECT_EQ(leader.count<leader_effect::release>(), 0U);  // there was none before
  EXPECT_FALSE(leader.ready());
  leader.finish_step();
  EXPECT_EQ(leader.last<leader_effect::proved>().epoch, epoch_1);
  EXPECT_TRUE(leader.ready());
}

TEST(LeaderMachine, RefusesRequestsBeforeItIsReady) {
  leader_driver leader;
  leader.submit(1);
  const auto ended = leader.last<leader_effect::end>();
  ASSERT_FALSE(ended.outcome);
  EXPECT_EQ(ended.outcome.error().code, base::error_code::unavailable);
  EXPECT_TRUE(ended.outcome.error().retryable);
}

TEST(LeaderMachine, StartsEveryChoiceWithItsOwnIndexAndTheSameSeed) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 3);
  const auto starts = leader.all<leader_effect::start>();
  ASSERT_EQ(starts.size(), 3U);
  for (std::uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(starts[choice].key, (choice_key{base::request_id{1}, choice}));
    EXPECT_EQ(starts[choice].log.params.choice, choice);
    EXPECT_EQ(starts[choice].log.params.seed, 99U);
    EXPECT_EQ(starts[choice].log.prompt_ids, (std::vector{1, 2, 3}));
    EXPECT_EQ(starts[choice].log.scope.tenant, "t");
  }
}

TEST(LeaderMachine, HandsOutTokensThenEndsOnce) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 2);
  leader.stepped({{1, 0, 11}, {1, 1, 12}});
  const auto tokens = leader.last<leader_effect::tokens>();
  ASSERT_EQ(tokens.tokens.size(), 2U);
  EXPECT_EQ(tokens.tokens[1].token.token_id, 12);
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  leader.stepped({{1, 0, 13, true}, {1, 1, 14}});
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);  // the other choice goes on
  leader.stepped({{1, 1, 15, true}});
  EXPECT_TRUE(leader.last<leader_effect::end>().outcome);
  EXPECT_EQ(leader.machine().open_requests(), 0U);
}

TEST(LeaderMachine, StopsACancelledRequestAtOnce) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 2);
  leader.tell(leader_event::cancelled{base::request_id{1}});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code, base::error_code::cancelled);
  EXPECT_EQ(leader.count<leader_effect::stop>(), 2U);
  leader.stepped({{1, 0, 11}, {1, 1, 12}});              // was computed before
  EXPECT_EQ(leader.count<leader_effect::tokens>(), 0U);  // nobody is told after the end
  EXPECT_EQ(leader.machine().cancelled(), 1U);
}

TEST(LeaderMachine, StartsARequestThatComesBeforeTheStepThatIsAskedFor) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  EXPECT_EQ(leader.count<leader_effect::step>(), 1U);
  leader.submit(2);
  EXPECT_EQ(leader.count<leader_effect::start>(), 1U);
  EXPECT_EQ(leader.count<leader_effect::step>(), 0U);  // one is asked for already
}

TEST(LeaderMachine, IsNoReadierForAStepThatComputedNothing) {
  leader_driver leader = leader_driver::serving();
  leader.wait(9s);
  leader.submit(1);
  leader.tell(leader_event::cancelled{base::request_id{1}});
  leader.tell(leader_event::stepped{.tokens = {}, .computed = false});
  leader.wait(2s);
  EXPECT_FALSE(leader.ready());
}

TEST(LeaderMachine, EndsAChoiceThatHasWhatItNeedsAndKeepsTheOthers) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 2);
  leader.tell(leader_event::choice_satisfied{{base::request_id{1}, 0}});
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  EXPECT_EQ(leader.count<leader_effect::stop>(), 1U);
  leader.stepped({{1, 0, 11}, {1, 1, 12}});
  EXPECT_EQ(leader.last<leader_effect::tokens>().tokens.size(), 1U);
  leader.tell(leader_event::choice_satisfied{{base::request_id{1}, 1}});
  EXPECT_TRUE(leader.last<leader_effect::end>().outcome);
}

TEST(LeaderMachine, GoesOnInTheNextEpochWithTheTokenThatWouldHaveCome) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.submit(2, 2);
  leader.stepped({{1, 0, 11}, {2, 0, 21}, {2, 1, 22}});
  leader.stepped({{1, 0, 12}, {2, 0, 23, true}, {2, 1, 24}});
  leader.tell(leader_event::epoch_ended{epoch_1, "rank 1 is lost"});
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  EXPECT_EQ(leader.last<leader_effect::release>().epoch, epoch_1);
  EXPECT_FALSE(leader.ready());
  leader.stepped({{1, 0, 13}, {2, 1, 25}});  // of the epoch that is over
  EXPECT_EQ(leader.count<leader_effect::tokens>(), 0U);

  leader.tell(leader_event::epoch_began{epoch_2});
  EXPECT_EQ(leader.count<leader_effect::start>(), 1U) << "the canary alone, until it has proved it";
  leader.finish_step();
  const auto starts = leader.all<leader_effect::start>();
  ASSERT_EQ(starts.size(), 2U) << "a choice that has ended does not come again";
  EXPECT_EQ(starts[0].key, (choice_key{base::request_id{1}, 0}));
  EXPECT_EQ(starts[0].log.prompt_ids, (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(starts[0].log.emitted_ids, (std::vector<std::int32_t>{11, 12}));
  EXPECT_EQ(starts[0].log.params.seed, 99U);
  EXPECT_EQ(starts[0].log.scope.tenant, "t");
  EXPECT_EQ(starts[1].key, (choice_key{base::request_id{2}, 1}));
  EXPECT_EQ(starts[1].log.params.choice, 1U);
  EXPECT_EQ(leader.machine().carried(), 2U);
  leader.stepped({{1, 0, 13, true}, {2, 1, 25, true}});
  EXPECT_EQ(leader.count<leader_effect::end>(), 2U);
}

TEST(LeaderMachine, EndsWhatWaitsTooLongForTheNextEpoch) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.submit(2, 1, 10s);
  leader.tell(leader_event::epoch_ended{epoch_1, "rank 1 is lost"});
  EXPECT_EQ(leader.last<leader_effect::wake_at>().when, leader.now() + 10s);
  leader.wait(11s);
  leader.tell(leader_event::woke{});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code,
            base::error_code::deadline_exceeded);
  leader.wait(20s);
  leader.tell(leader_event::woke{});
  ASSERT_EQ(leader.count<leader_effect::end>(), 1U);
  const base::error error = leader.last<leader_effect::end>().outcome.error();
  EXPECT_EQ(error.code, base::error_code::unavailable);
  EXPECT_TRUE(error.retryable);
  EXPECT_EQ(leader.machine().open_requests(), 0U);
}

// What is computed at two losses in a row may be what kills the gang; what has had a token between
// them, or only waited in the queue, is not.
TEST(LeaderMachine, HoldsBackARequestUnderWhichTheGangIsLostTwice) {
  leader_driver leader = leader_driver::serving();
  for (const std::uint64_t id : {1, 2, 3}) leader.submit(id);
  leader.stepped({{1, 0, 11}, {2, 0, 21}});
  const std::vector<choice_key> computed = {{base::request_id{1}, 0}, {base::request_id{2}, 0}};
  leader.tell(leader_event::epoch_ended{epoch_1, "lost", computed});
  leader.tell(leader_event::epoch_began{epoch_2});
  leader.finish_step();
  leader.stepped({{2, 0, 22}});
  leader.tell(leader_event::step_failed{{base::error_code::aborted, "lost again", "t"}, computed});
  ASSERT_EQ(leader.count<leader_effect::end>(), 1U);
  EXPECT_EQ(leader.last<leader_effect::end>().id, base::request_id{1});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code, base::error_code::internal);
  leader.tell(leader_event::epoch_began{{7, 3}});
  leader.finish_step();
  const auto starts = leader.all<leader_effect::start>();
  ASSERT_EQ(starts.size(), 2U);
  EXPECT_EQ(starts[0].log.emitted_ids, (std::vector<std::int32_t>{21, 22}));
  EXPECT_TRUE(starts[1].log.emitted_ids.empty());
}

TEST(LeaderMachine, CountsNoLossForARequestThatWaited) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  for (std::uint64_t number = 2; number < 6; ++number) {
    leader.tell(leader_event::epoch_began{{7, number}});
    leader.tell(leader_event::epoch_ended{{7, number}, "before its first step"});
    EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  }
}

TEST(LeaderMachine, DoesNotGoOnWhereTheNumericsDiffer) {
  leader_driver leader;
  leader.tell(leader_event::epoch_began{epoch_1, "avx512"});
  leader.finish_step();
  leader.submit(1);
  leader.submit(2);
  leader.stepped({{1, 0, 11}});
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::epoch_began{epoch_2, "avx2"});
  ASSERT_EQ(leader.count<leader_effect::end>(), 1U);
  EXPECT_EQ(leader.last<leader_effect::end>().id, base::request_id{1});
  EXPECT_TRUE(leader.last<leader_effect::end>().outcome.error().retryable);
  leader.finish_step();
  EXPECT_EQ(leader.count<leader_effect::start>(), 1U) << "nobody has a token of the other";
}

TEST(LeaderMachine, ACancelledRequestDoesNotComeAgain) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::cancelled{base::request_id{1}});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code, base::error_code::cancelled);
  EXPECT_EQ(leader.count<leader_effect::stop>(), 0U) << "no engine is there to be told";
  leader.tell(leader_event::epoch_began{epoch_2});
  leader.finish_step();
  EXPECT_EQ(leader.count<leader_effect::start>(), 0U);
}

TEST(LeaderMachine, DoesNothingBetweenEpochs) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  EXPECT_EQ(leader.count<leader_effect::wake_at>(), 0U);
  leader.wait(5s);
  leader.tell(leader_event::woke{});
  EXPECT_EQ(leader.count<leader_effect::start>(), 0U);
  EXPECT_EQ(leader.count<leader_effect::wake_at>(), 0U);
}

TEST(LeaderMachine, LeavesAnEpochOnce) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::epoch_ended{epoch_1, "lost again"});
  EXPECT_EQ(leader.count<leader_effect::release>(), 0U);
  leader.tell(leader_event::step_failed{{base::error_code::aborted, "the group was aborted", "t"}});
  EXPECT_EQ(leader.count<leader_effect::failed>(), 0U);
  EXPECT_EQ(leader.count<leader_effect::release>(), 0U);
  EXPECT_EQ(leader.machine().stale_dropped(), 1U);
}

TEST(LeaderMachine, LeavesTheEpochThatANewOneOvertakes) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.tell(leader_event::epoch_began{epoch_2});
  EXPECT_EQ(leader.last<leader_effect::release>().epoch, epoch_1);
  leader.finish_step();
  EXPECT_EQ(leader.last<leader_effect::proved>().epoch, epoch_2);
  EXPECT_EQ(leader.last<leader_effect::start>().key.request, base::request_id{1});
}

TEST(LeaderMachine, TakesAnyEpochOfANewIncarnation) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::epoch_began{{epoch_1.incarnation - 1, 1}});
  leader.finish_step();
  EXPECT_TRUE(leader.ready());
}

TEST(LeaderMachine, ServesAgainInTheNextEpoch) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::epoch_began{epoch_2});
  leader.finish_step();
  EXPECT_TRUE(leader.ready());
  leader.submit(5);
  EXPECT_EQ(leader.count<leader_effect::start>(), 1U);
}

TEST(LeaderMachine, DropsAndCountsWhatBelongsToAnOlderEpoch) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::epoch_ended{epoch_1, "lost"});
  leader.tell(leader_event::epoch_began{epoch_2});
  leader.finish_step();
  leader.tell(leader_event::epoch_ended{epoch_1, "late news"});
  leader.tell(leader_event::epoch_began{epoch_1});
  EXPECT_TRUE(leader.ready());
  EXPECT_EQ(leader.machine().stale_dropped(), 2U);
}

TEST(LeaderMachine, LeavesTheEpochWhenAStepFails) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.tell(leader_event::step_failed{{base::error_code::aborted, "the group was aborted", "t"}});
  EXPECT_EQ(leader.last<leader_effect::failed>().epoch, epoch_1);
  EXPECT_EQ(leader.count<leader_effect::release>(), 1U);
  EXPECT_EQ(leader.machine().open_requests(), 1U);
}

TEST(LeaderMachine, LeavesTheEpochWhenTheCanarysLogitsAreNoNumbers) {
  leader_driver leader;
  leader.tell(leader_event::epoch_began{epoch_1});
  leader.fail_choice(canary_request, 0, base::error_code::internal);
  EXPECT_EQ(leader.count<leader_effect::failed>(), 1U);
  EXPECT_FALSE(leader.ready());
}

TEST(LeaderMachine, LeavesTheEpochWhenTheEngineRefusesTheCanary) {
  leader_driver leader;
  leader.tell(leader_event::epoch_began{epoch_1});
  leader.tell(leader_event::start_refused{{canary_request, 0},
                                          {base::error_code::resource_exhausted, "full", "t"}});
  EXPECT_EQ(leader.last<leader_effect::failed>().reason, "full");
  EXPECT_EQ(leader.count<leader_effect::release>(), 1U);
}

TEST(LeaderMachine, HandsOutNoTokensOfAStepInWhichTheCanaryFailed) {
  leader_driver leader = leader_driver::serving();
  leader.wait(4s);
  leader.tell(leader_event::woke{});
  leader.submit(1);
  ASSERT_EQ(leader.count<leader_effect::start>(), 1U);
  leader_event::stepped event;
  event.tokens.resize(2);
  event.tokens[0].key = {base::request_id{1}, 0};
  event.tokens[1].key = {canary_request, 0};
  event.tokens[1].failed = base::error{base::error_code::internal, "not finite", "t"};
  event.tokens[0].token.token_id = 11;
  leader.tell(std::move(event));
  EXPECT_EQ(leader.count<leader_effect::tokens>(), 0U);
  leader.tell(leader_event::epoch_began{epoch_2});
  leader.finish_step();
  EXPECT_TRUE(leader.last<leader_effect::start>().log.emitted_ids.empty()) << "it comes again";
}

TEST(LeaderMachine, EndsOnlyTheRequestWhoseLogitsAreNoNumbers) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 2);
  leader.submit(2);
  leader.fail_choice(base::request_id{1}, 0, base::error_code::internal);
  EXPECT_EQ(leader.all<leader_effect::end>().size(), 1U);
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code, base::error_code::internal);
  const auto stops = leader.all<leader_effect::stop>();
  ASSERT_EQ(stops.size(), 1U);  // the engine has dropped the other one itself
  EXPECT_EQ(stops[0].key.choice, 1U);
  EXPECT_EQ(leader.machine().open_requests(), 1U);
  EXPECT_TRUE(leader.ready());
}

TEST(LeaderMachine, EndsARequestThatTheEngineRefuses) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 2);
  leader.tell(leader_event::start_refused{{base::request_id{1}, 1},
                                          {base::error_code::resource_exhausted, "full", "t"}});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code,
            base::error_code::resource_exhausted);
  EXPECT_EQ(leader.machine().open_requests(), 0U);
  const auto stops = leader.all<leader_effect::stop>();
  ASSERT_EQ(stops.size(), 1U);  // of the choice that it took
  EXPECT_EQ(stops[0].key.choice, 0U);
}

TEST(LeaderMachine, ComputesACanaryWhenIdleSoThatReadinessNeverAges) {
  leader_driver leader = leader_driver::serving();
  EXPECT_EQ(leader.last<leader_effect::wake_at>().when, leader.now() + 4s);
  leader.wait(4s);
  leader.tell(leader_event::woke{});
  EXPECT_EQ(leader.last<leader_effect::start>().key.request, canary_request);
  leader.finish_step();
  EXPECT_EQ(leader.count<leader_effect::proved>(), 0U);  // it was proved before
  EXPECT_TRUE(leader.ready());
  leader.wait(11s);  // nothing has stepped
  EXPECT_FALSE(leader.ready());
}

TEST(LeaderMachine, ComputesNoCanaryBesideARequest) {
  leader_driver leader = leader_driver::serving();
  leader.wait(5s);
  leader.submit(1);
  ASSERT_EQ(leader.count<leader_effect::start>(), 1U);
  EXPECT_EQ(leader.last<leader_effect::start>().key.request, base::request_id{1});
}

TEST(LeaderMachine, EndsARequestAtItsDeadline) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 1, 100ms);
  EXPECT_EQ(leader.last<leader_effect::wake_at>().when, leader.now() + 100ms);
  leader.wait(99ms);
  leader.tell(leader_event::woke{});
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  leader.wait(1ms);
  leader.tell(leader_event::woke{});
  EXPECT_EQ(leader.last<leader_effect::end>().outcome.error().code,
            base::error_code::deadline_exceeded);
}

TEST(LeaderMachine, GivesNoRequestMoreThanTheServersOwnPatience) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1, 1, 24h);
  EXPECT_EQ(leader.last<leader_effect::wake_at>().when, leader.now() + 600s);
}

TEST(LeaderMachine, DrainsByRefusingTheNewAndEndingTheOpen) {
  leader_driver leader = leader_driver::serving();
  leader.submit(1);
  leader.tell(leader_event::drain{});
  EXPECT_FALSE(leader.ready());
  EXPECT_EQ(leader.count<leader_effect::drained>(), 0U);
  leader.submit(2);
  EXPECT_FALSE(leader.last<leader_effect::end>().outcome);
  leader.stepped({{1, 0, 11, true}});
  EXPECT_EQ(leader.count<leader_effect::drained>(), 1U);
  leader.tell(leader_event::drain{});
  EXPECT_EQ(leader.count<leader_effect::drained>(), 0U);  // said once
}

TEST(LeaderMachine, IgnoresWhatComesTooLate) {
  leader_driver leader = leader_driver::serving();
  leader.tell(leader_event::cancelled{base::request_id{9}});
  leader.tell(leader_event::choice_satisfied{{base::request_id{9}, 0}});
  leader.tell(leader_event::start_refused{{base::request_id{9}, 0}, {}});
  leader.submit(1);
  leader.tell(leader_event::choice_satisfied{{base::request_id{1}, 1}});  // it has one choice
  EXPECT_EQ(leader.count<leader_effect::end>(), 0U);
  EXPECT_EQ(leader.machine().cancelled(), 0U);
}

}  // namespace
}  // namespace troupe::actors
