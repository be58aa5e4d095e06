// Who joins the gang, who is refused, who is lost.
#include <gmock/gmock.h>

#include "tests/actors/gang_driver.hpp"

namespace troupe::actors {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

schemas::join_request with_paths(int rank, std::vector<std::string> paths) {
  schemas::join_request asks = description(rank);
  asks.instruction_paths = std::move(paths);
  return asks;
}

TEST(GangMembers, WelcomesARank) {
  gang_driver gang;
  gang.join(1);
  ASSERT_EQ(all_of<gang::send>(gang.effects).size(), 1U);
  const gang::send answer = all_of<gang::send>(gang.effects)[0];
  EXPECT_EQ(answer.connection, gang.line(1));
  EXPECT_EQ(answer.message.sender, base::rank_id{0});
  EXPECT_EQ(answer.message.sequence, 1U);
  EXPECT_EQ(std::get<schemas::welcome>(answer.message.body).incarnation, incarnation);
  EXPECT_EQ(std::get<schemas::welcome>(answer.message.body).instruction_path, "amx_bf16");
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  EXPECT_EQ(gang.rank(1).node, "node-1");
  EXPECT_EQ(gang.rank(2).state, rank_state::absent);
}

TEST(GangMembers, WelcomesInAnyOrder) {
  for (const std::vector<int>& order : {std::vector{2, 1, 0}, std::vector{0, 2, 1}}) {
    gang_driver gang;
    for (const int rank : order) {
      EXPECT_EQ(gang.join(rank).count_said<schemas::welcome>(), 1);
      EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
      gang.load(rank);
    }
    EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  }
}

TEST(GangMembers, RepeatsTheWelcomeUntilTheRankHasLoaded) {
  gang_driver gang;
  gang.join(1);
  EXPECT_EQ(gang.wait(gang_times::resend - 1ms).count_said<schemas::welcome>(), 0);
  EXPECT_EQ(gang.wait(1ms).count_said<schemas::welcome>(), 1);
  EXPECT_EQ(all_of<gang::send>(gang.effects)[0].message.sequence, 2U);
  EXPECT_EQ(gang.wait(gang_times::resend).count_said<schemas::welcome>(), 1);
  gang.load(1);
  EXPECT_EQ(gang.wait(5s).count_said<schemas::welcome>(), 0);
}

TEST(GangMembers, WelcomesAgainARankThatAsksAgain) {
  gang_driver gang;
  gang.join(1).join(1);
  EXPECT_EQ(gang.count_said<schemas::welcome>(), 1);
  EXPECT_EQ(count_of<gang::drop>(gang.effects), 0);
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
}

TEST(GangMembers, RefusesWhatDiffersAndKeepsListening) {
  gang_driver gang;
  schemas::join_request asks = description(1);
  asks.layout.max_model_len = 8192;
  gang.hear(1, asks);
  EXPECT_THAT(gang.refusal(1), HasSubstr("rank 1 (node-1) differs in max_model_len: 8192"));
  EXPECT_EQ(gang.count_said<schemas::welcome>(), 0);
  EXPECT_EQ(count_of<gang::drop>(gang.effects), 0);
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_THAT(gang.rank(1).detail, HasSubstr("refused"));
  EXPECT_THAT(gang.rank(1).detail, HasSubstr("max_model_len"));
  EXPECT_EQ(gang.join(1).count_said<schemas::welcome>(), 1);
}

TEST(GangMembers, LogsARefusalOncePerChange) {
  const auto refused = [](const gang_driver& gang) {
    std::vector<std::string> lines;
    for (const std::string& line : gang.logs()) {
      if (line.starts_with("refused: ")) lines.push_back(line);
    }
    return lines;
  };
  gang_driver gang;
  schemas::join_request asks = description(1);
  asks.layout.max_model_len = 8192;
  EXPECT_THAT(refused(gang.hear(1, asks)), ElementsAre(HasSubstr("max_model_len: 8192")));
  EXPECT_THAT(refused(gang.hear(1, asks)), IsEmpty());
  asks.layout.max_model_len = 9000;
  EXPECT_THAT(refused(gang.hear(1, asks)), ElementsAre(HasSubstr("max_model_len: 9000")));
  EXPECT_THAT(refused(gang.hear(1, asks)), IsEmpty());
  // Another rank has its own line; so have all that are outside, together.
  asks.rank = {2};
  EXPECT_THAT(refused(gang.hear(2, asks)), ElementsAre(HasSubstr("rank 2")));
  EXPECT_THAT(refused(gang.hear(7, description(7))), ElementsAre(HasSubstr("rank 7")));
  EXPECT_THAT(refused(gang.hear(7, description(7))), IsEmpty());
  EXPECT_THAT(refused(gang.hear(-1, description(-1))), ElementsAre(HasSubstr("rank -1")));
  // Once it was in, a refusal is news again.
  asks = description(1);
  gang.join(1);
  asks.layout.max_model_len = 9000;
  EXPECT_THAT(refused(gang.hear(1, asks)), ElementsAre(HasSubstr("max_model_len: 9000")));
}

TEST(GangMembers, AMemberThatComesBackDifferentIsLost) {
  gang_driver gang;
  gang.to_serving();
  schemas::join_request asks = description(1);
  asks.layout.max_model_len = 9000;
  gang.hear(1, asks);
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_THAT(gang.refusal(1), HasSubstr("max_model_len"));
}

TEST(GangMembers, ARankThatIsHereIsNotTakenByAnotherNode) {
  gang_driver gang;
  gang.to_serving();
  schemas::join_request asks = description(1);
  asks.node = "node-x";
  gang.hear_on({99}, 1, asks);
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
  const auto said = gang.said<schemas::refusal>();
  ASSERT_EQ(said.count({99}), 1U);
  EXPECT_THAT(said.find({99})->second.reason,
              HasSubstr("rank 1 (node-x) is here already, from node-1"));
  EXPECT_EQ(gang.rank(1).detail.find("refused"), std::string::npos);
  // Once the first has gone, the other may come.
  gang.feed(gang::connection_down{gang.line(1), "reset"});
  EXPECT_EQ(gang.hear_on({99}, 1, asks).count_said<schemas::welcome>(), 1);
}

TEST(GangMembers, ARankThatComesBackOverANewConnectionReplacesItself) {
  gang_driver gang;
  gang.to_serving();
  gang.hear_on({99}, 1, description(1));
  EXPECT_EQ(all_of<gang::drop>(gang.effects).size(), 1U);
  EXPECT_EQ(all_of<gang::drop>(gang.effects)[0].connection, gang.line(1));
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  EXPECT_EQ(gang.said<schemas::welcome>().count({99}), 1U);
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  // What the old connection still says or does is nothing.
  gang.feed(gang::connection_down{gang.line(1), "reset"});
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
}

TEST(GangMembers, TakesTheBestCommonPath) {
  gang_driver gang;
  gang.join(0);
  gang.hear(1, with_paths(1, {"avx512", "avx2"}));
  // Rank 0 has been welcomed with a faster one and is told.
  const auto welcomes = gang.said<schemas::welcome>();
  ASSERT_EQ(welcomes.size(), 2U);
  EXPECT_EQ(welcomes.find(gang.line(0))->second.instruction_path, "avx512");
  EXPECT_EQ(welcomes.find(gang.line(1))->second.instruction_path, "avx512");
  gang.hear(2, with_paths(2, {"amx_bf16", "avx2"}));
  EXPECT_EQ(gang.count_said<schemas::welcome>(), 3);
  EXPECT_EQ(gang.said<schemas::welcome>().find(gang.line(2))->second.instruction_path, "avx2");
  EXPECT_EQ(gang.machine.view().instruction_path, "avx2");
}

TEST(GangMembers, APathThatIsNotTheBestGoesUnnoticed) {
  gang_driver gang;
  gang.join(0);
  EXPECT_EQ(gang.hear(1, with_paths(1, {"amx_bf16", "avx2"})).count_said<schemas::welcome>(), 1);
  gang.hear(2, with_paths(2, {"avx512"}));
  EXPECT_THAT(gang.refusal(2),
              HasSubstr("rank 2 (node-2) offers none of the gang's instruction paths amx_bf16, "
                        "avx2: it offers avx512"));
}

TEST(GangMembers, ANarrowerPathMakesPackedRanksLoadAgain) {
  gang_driver gang;
  gang.join(0).load(0);
  EXPECT_EQ(gang.rank(0).state, rank_state::waiting);
  gang.hear(1, with_paths(1, {"avx2"}));
  EXPECT_EQ(gang.rank(0).state, rank_state::loading);
  gang.load(0);  // still the old one
  EXPECT_EQ(gang.rank(0).state, rank_state::loading);
  gang.hear(0, schemas::loaded{{}, "avx2"});
  EXPECT_EQ(gang.rank(0).state, rank_state::waiting);
}

TEST(GangMembers, ThePathDoesNotWidenAgain) {
  gang_driver gang;
  gang.join(0);
  gang.hear(1, with_paths(1, {"avx2"}));
  gang.feed(gang::connection_down{gang.line(1), "reset"});
  gang.hear_on({99}, 1, description(1));
  EXPECT_EQ(gang.said<schemas::welcome>().find({99})->second.instruction_path, "avx2");
}

TEST(GangMembers, TheLeadersOnlyPathIsTakenOrRefused) {
  gang_driver gang({.paths = {"avx512"}});
  gang.hear(0, with_paths(0, {"avx512"}));
  EXPECT_EQ(gang.said<schemas::welcome>().begin()->second.instruction_path, "avx512");
  gang.hear(1, with_paths(1, {"avx2"}));
  EXPECT_EQ(gang.refusal(1),
            "rank 1 (node-1) offers none of the gang's instruction paths avx512: it offers avx2; "
            "give every node the same --numerics, or none");
}

TEST(GangMembers, AnyRanksOnlyPathIsThatOfAll) {
  gang_driver gang;
  gang.join(0);
  gang.hear(1, with_paths(1, {"avx512"}));
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  gang.hear(2, with_paths(2, {"avx2"}));
  EXPECT_THAT(gang.refusal(2), HasSubstr("instruction paths avx512: it offers avx2"));
}

TEST(GangMembers, ChecksTheShareOfTheWeights) {
  const share_check check = [](const schemas::join_request& rank,
                               const schemas::loaded& share) -> std::optional<std::string> {
    if (rank.rank.value != 1 || share.share_digest[0] == 5) return std::nullopt;
    return "rank 1 has other weights";
  };
  gang_driver gang({.check_share = check});
  gang.to_joined();
  EXPECT_EQ(gang.load(0).rank(0).state, rank_state::waiting);
  gang.load(1);
  EXPECT_EQ(gang.refusal(1), "rank 1 has other weights");
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_THAT(gang.rank(1).detail, HasSubstr("refused: rank 1 has other weights"));
  EXPECT_EQ(count_of<gang::drop>(gang.effects), 0);
  gang.join(1).hear(1, schemas::loaded{{5}, "amx_bf16"});
  EXPECT_EQ(gang.rank(1).state, rank_state::waiting);
}

// Until then nobody can say what is right.
TEST(GangMembers, ChecksSharesThatCameEarlyWhenRankZeroHasLoaded) {
  int checks = 0;
  const share_check check = [&](const schemas::join_request& rank,
                                const schemas::loaded& share) -> std::optional<std::string> {
    ++checks;
    if (share.share_digest[0] != 6) return std::nullopt;
    return "rank " + std::to_string(rank.rank.value) + " has other weights";
  };
  gang_driver gang({.check_share = check});
  gang.to_joined();
  gang.hear(1, schemas::loaded{{6}, "amx_bf16"}).hear(2, schemas::loaded{{5}, "amx_bf16"});
  EXPECT_EQ(gang.rank(1).state, rank_state::waiting);
  EXPECT_EQ(checks, 0);
  gang.load(0);
  EXPECT_EQ(checks, 3);
  EXPECT_EQ(gang.refusal(1), "rank 1 has other weights");
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
  EXPECT_EQ(gang.rank(2).state, rank_state::waiting);
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  // What was right stays so; a rank that joins anew is checked anew.
  gang.join(1).hear(1, schemas::loaded{{5}, "amx_bf16"});
  EXPECT_EQ(checks, 4);
  EXPECT_NE(gang.machine.phase(), gang_phase::gathering);
}

TEST(GangMembers, AShareThatIsSaidTwiceIsCheckedOnce) {
  int checks = 0;
  const share_check check = [&](const schemas::join_request&,
                                const schemas::loaded&) -> std::optional<std::string> {
    ++checks;
    return std::nullopt;
  };
  gang_driver gang({.check_share = check});
  gang.to_joined();
  gang.load(0).load(0).load(1).load(1);
  EXPECT_EQ(checks, 2);
}

// A share said before the rank was lost is not that of its next life.
TEST(GangMembers, ForgetsTheShareOfALostRank) {
  int checks = 0;
  const share_check check = [&](const schemas::join_request&,
                                const schemas::loaded&) -> std::optional<std::string> {
    ++checks;
    return std::nullopt;
  };
  gang_driver gang({.check_share = check});
  gang.to_joined();
  gang.load(1).feed(gang::connection_down{gang.line(1), "reset"});
  gang.load(0);
  EXPECT_EQ(checks, 1);
}

TEST(GangMembers, MessagesAreTakenInAscendingSequenceOnly) {
  gang_driver gang;
  gang.to_joined();
  const auto loaded_with = [&](std::uint64_t sequence) {
    gang.feed(gang::received{
        gang.line(1),
        {.sender = {1}, .sequence = sequence, .body = schemas::loaded{{}, "amx_bf16"}}});
  };
  loaded_with(1);
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  EXPECT_EQ(gang.machine.repeated_dropped(), 1U);
  loaded_with(5);
  EXPECT_EQ(gang.rank(1).state, rank_state::waiting);
  // Once a rank has left an epoch, an overtaken message of it does not bring it back.
  gang.load(0).load(2);
  gang.feed(gang::epoch_failed{epoch(1), "segment"});
  ASSERT_EQ(gang.machine.phase(), gang_phase::gathering);
  loaded_with(4);
  EXPECT_EQ(gang.machine.repeated_dropped(), 2U);
  EXPECT_THAT(gang.rank(1).detail, HasSubstr("has not yet left"));
}

TEST(GangMembers, ARankSpeaksForItselfOnly) {
  gang_driver gang;
  gang.to_joined();
  gang.hear_on(gang.line(1), 2, schemas::loaded{{}, "amx_bf16"});
  EXPECT_EQ(gang.rank(1).state, rank_state::loading);
  EXPECT_EQ(gang.rank(2).state, rank_state::loading);
  EXPECT_EQ(gang.machine.repeated_dropped(), 1U);
}

TEST(GangMembers, WhoHasNotJoinedIsSentAway) {
  gang_driver gang;
  gang.hear(1, schemas::loaded{{}, "amx_bf16"});
  ASSERT_EQ(all_of<gang::drop>(gang.effects).size(), 1U);
  EXPECT_EQ(all_of<gang::drop>(gang.effects)[0].connection, gang.line(1));
  EXPECT_EQ(gang.rank(1).state, rank_state::absent);
}

TEST(GangMembers, WhatOnlyALeaderSaysIsCounted) {
  gang_driver gang;
  gang.to_joined();
  gang.hear(1, schemas::welcome{}).hear(1, schemas::refusal{}).hear(1, schemas::prepare{});
  gang.hear(1, schemas::connect{});
  EXPECT_EQ(gang.machine.view().stale_dropped, 4U);
}

TEST(GangMembers, HoldsBoundedlyManyConnections) {
  gang_driver gang;
  gang.to_joined();
  int dropped = 0;
  for (std::uint64_t guest = 100; guest < 300; ++guest) {
    gang.hear_on({guest}, 9, description(9));
    dropped += count_of<gang::drop>(gang.effects);
  }
  EXPECT_EQ(dropped, 200 - (64 + 4 * 3 - 3));
  // Members are still heard.
  gang.each([&](int rank) { gang.load(rank); });
  EXPECT_EQ(gang.machine.phase(), gang_phase::preparing);
  // A place that is free is taken.
  gang.feed(gang::connection_down{{100}, "gone"});
  gang.hear_on({500}, 9, description(9));
  EXPECT_EQ(count_of<gang::drop>(gang.effects), 0);
}

TEST(GangMembers, ALostConnectionIsALostRank) {
  gang_driver gang;
  gang.to_serving().feed(gang::connection_down{gang.line(2), "reset by peer"});
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  EXPECT_EQ(gang.rank(2).state, rank_state::absent);
  EXPECT_THAT(gang.rank(2).detail, HasSubstr("reset by peer"));
  EXPECT_THAT(all_of<gang::stop_serving>(gang.effects).at(0).reason,
              HasSubstr("rank 2 (node-2) is lost: reset by peer"));
  // Only those that are reachable are told.
  EXPECT_EQ(gang.count_said<schemas::epoch_ended>(), 2);
  EXPECT_EQ(gang.said<schemas::epoch_ended>().count(gang.line(2)), 0U);
}

TEST(GangMembers, AConnectionThatNobodyJoinedOnMayGo) {
  gang_driver gang;
  gang.to_serving();
  gang.hear_on({99}, 9, description(9));
  gang.feed(gang::connection_down{{99}, "gone"}).feed(gang::connection_down{{98}, "gone"});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
}

TEST(GangMembers, ALostRankEndsTheEpochAndItsConnection) {
  gang_driver gang;
  gang.to_serving().feed(gang::rank_lost{{2}, "killed by signal 9", 3});
  EXPECT_EQ(gang.machine.phase(), gang_phase::gathering);
  ASSERT_EQ(all_of<gang::drop>(gang.effects).size(), 1U);
  EXPECT_EQ(all_of<gang::drop>(gang.effects)[0].connection, gang.line(2));
  EXPECT_EQ(gang.rank(2).state, rank_state::absent);
  EXPECT_EQ(gang.rank(2).restarts, 3U);
  EXPECT_THAT(gang.rank(2).detail, HasSubstr("killed by signal 9"));
  // Told again it changes the cause at most.
  gang.feed(gang::rank_lost{{2}, "node 1: no heartbeat", 4});
  EXPECT_EQ(count_of<gang::drop>(gang.effects), 0);
  EXPECT_THAT(gang.rank(2).detail, HasSubstr("no heartbeat"));
  EXPECT_EQ(gang.rank(2).restarts, 4U);
}

TEST(GangMembers, ALostRankOutsideTheGangIsNothing) {
  gang_driver gang;
  gang.to_serving().feed(gang::rank_lost{{-1}, "", 0}).feed(gang::rank_lost{{3}, "", 0});
  EXPECT_EQ(gang.machine.phase(), gang_phase::serving);
}

// Its first bytes are progress, however far its last life had come.
TEST(GangMembers, ARankThatLoadsAgainIsWaitedForAgain) {
  const auto patience = gang_options{}.patience;
  gang_driver gang;
  gang.join(1).hear(1, schemas::loading_progress{90, 100});
  gang.feed(gang::connection_down{gang.line(1), "reset"}).hear_on({99}, 1, description(1));
  ASSERT_FALSE(gang.wait(patience - 1s).gave_up());
  gang.hear_on({99}, 1, schemas::loading_progress{10, 100});
  EXPECT_FALSE(gang.wait(patience - 1s).gave_up());
}

TEST(GangMembers, ShowsHowFarTheyHaveLoaded) {
  gang_driver gang;
  gang.join(1);
  EXPECT_EQ(gang.rank(1).detail, "loads");
  gang.hear(1, schemas::loading_progress{25, 100});
  EXPECT_EQ(gang.rank(1).detail, "loads (25 %)");
  gang.feed(gang::connection_down{gang.line(1), "reset"}).hear_on({99}, 1, description(1));
  EXPECT_EQ(gang.rank(1).detail, "loads");
}

}  // namespace
}  // namespace troupe::actors
