#include "engine/planner.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/engine/planner_world.hpp"

namespace troupe::engine {
namespace {

using testing::ElementsAre;

const models::kv_spec full{};
models::kv_spec sliding(std::int64_t window) {
  return {.kind = models::kv_kind::sliding, .window = window};
}

std::vector<std::size_t> sizes(const step_plan& plan) {
  std::vector<std::size_t> sizes;
  for (const planned_rows& rows : plan.sequences) sizes.push_back(rows.token_ids.size());
  return sizes;
}

TEST(Planner, PlansNothingWithoutSequences) {
  planner_world world({.blocks_per_group = 4, .groups = {full}});
  EXPECT_TRUE(world.step().sequences.empty());
}

TEST(Planner, CutsAPromptIntoChunks) {
  planner_world world(
      {.max_num_batched_tokens = 64, .prefill_chunk = 16, .blocks_per_group = 8, .groups = {full}});
  world.add({.prompt_tokens = 40, .max_tokens = 2});
  step_plan plan = world.step();
  EXPECT_THAT(sizes(plan), ElementsAre(16));
  EXPECT_FALSE(plan.sequences[0].sample.has_value());
  EXPECT_THAT(sizes(world.step()), ElementsAre(16));
  plan = world.step();
  EXPECT_THAT(sizes(plan), ElementsAre(8));
  EXPECT_TRUE(plan.sequences[0].sample.has_value());
  EXPECT_THAT(sizes(world.step()), ElementsAre(1));
  EXPECT_EQ(world.ended(), 1U);
}

TEST(Planner, FillsTheTokenBudgetOldestFirst) {
  planner_world world({.max_num_batched_tokens = 20,
                       .prefill_chunk = 100,
                       .blocks_per_group = 32,
                       .groups = {full}});
  world.add({.prompt_tokens = 12});
  world.add({.prompt_tokens = 12});
  world.add({.prompt_tokens = 12});
  EXPECT_THAT(sizes(world.step()), ElementsAre(12, 8));
  EXPECT_THAT(sizes(world.step()), ElementsAre(4, 12));
}

TEST(Planner, RunsAtMostSoManySequencesAtOnceInTheOrderTheyCame) {
  planner_world world({.max_num_seqs = 2, .blocks_per_group = 8, .groups = {full}});
  world.add({.prompt_tokens = 3, .max_tokens = 2});
  world.add({.prompt_tokens = 3, .max_tokens = 4});
  world.add({.prompt_tokens = 5, .max_tokens = 2});
  EXPECT_THAT(sizes(world.step()), ElementsAre(3, 3));
  EXPECT_THAT(sizes(world.step()), ElementsAre(1, 1));
  EXPECT_THAT(sizes(world.step()), ElementsAre(1, 5));
}

TEST(Planner, ALongPromptNeverStopsWhatIsDecoding) {
  planner_world world({.max_num_batched_tokens = 16,
                       .max_num_seqs = 8,
                       .prefill_chunk = 512,
                       .blocks_per_group = 64,
                       .groups = {full}});
  // The long prompt is older than those that decode beside it.
  const auto oldest = world.add({.prompt_tokens = 2, .max_tokens = 500});
  world.add({.prompt_tokens = 300, .max_tokens = 2});
  world.add({.prompt_tokens = 2, .max_tokens = 60});
  world.add({.prompt_tokens = 2, .max_tokens = 60});
  world.step();
  ASSERT_EQ(world.plans().find(oldest)->log.emitted_ids.size(), 1U);
  for (int i = 0; i < 20; ++i) {
    const std::vector<std::size_t> step = sizes(world.step());
    ASSERT_FALSE(testing::Test::HasFailure()) << "step " << i;
    EXPECT_EQ(step.front(), 1U);
  }
}

TEST(Planner, APromptStillMovesWhenEveryTokenOfTheBudgetIsTakenByDecoding) {
  planner_world world(
      {.max_num_batched_tokens = 4, .max_num_seqs = 8, .blocks_per_group = 64, .groups = {full}});
  world.add({.prompt_tokens = 3, .max_tokens = 12});
  for (int i = 0; i < 5; ++i) world.add({.prompt_tokens = 3, .max_tokens = 3});
  for (int i = 0; i < 200 && !world.live().empty(); ++i) world.step();
  EXPECT_EQ(world.ended(), 6U);
}

TEST(Planner, TheYoungestGivesItsBlocksUpAndIsComputedAgain) {
  planner_world world({.max_num_batched_tokens = 64, .blocks_per_group = 3, .groups = {full}});
  const auto old = world.add({.prompt_tokens = 15, .max_tokens = 20});
  const auto middle = world.add({.prompt_tokens = 15, .max_tokens = 4});
  const auto young = world.add({.prompt_tokens = 15, .max_tokens = 4});
  world.step();
  world.step();  // positions 0 .. 15: one block each is full
  EXPECT_EQ(world.plans().preemptions(), 0U);
  const step_plan plan = world.step();  // the oldest needs a second block, and the middle one too
  ASSERT_GE(plan.sequences.size(), 1U);
  EXPECT_EQ(plan.sequences[0].sequence, old);
  EXPECT_EQ(world.plans().find(young)->computed, 0);
  EXPECT_GE(world.plans().preemptions(), 1U);
  EXPECT_NE(world.plans().find(middle), nullptr);
  for (int i = 0; i < 200 && !world.live().empty(); ++i) world.step();
  EXPECT_EQ(world.ended(), 3U) << "each has ended with all its tokens";
  EXPECT_EQ(world.plans().free_blocks(), 3);
}

TEST(Planner, GivesBlocksOutOfTheWindowBack) {
  planner_world world({.prefill_chunk = 16, .blocks_per_group = 4, .groups = {sliding(20)}});
  world.add({.prompt_tokens = 300, .max_tokens = 40});
  for (int i = 0; i < 1000 && !world.live().empty(); ++i) {
    world.step();
    // The window of 20 touches at most three blocks, and a chunk of 16 at most two more.
    ASSERT_GE(world.plans().free_blocks(), 0);
  }
  EXPECT_EQ(world.ended(), 1U) << "22 blocks of positions went through a pool of 4";
  EXPECT_EQ(world.plans().preemptions(), 0U);
  EXPECT_EQ(world.plans().free_blocks(), 4);
}

TEST(Planner, KeepsABlockAsLongAsOnePositionOfItIsVisible) {
  planner_world world({.blocks_per_group = 8, .groups = {sliding(16)}});
  const auto id = world.add({.prompt_tokens = 31, .max_tokens = 10});
  world.step();
  world.step();  // the query at 31 sees 16 .. 31: the first block is out
  EXPECT_THAT(world.plans().find(id)->block_tables[0], ElementsAre(-1, testing::Ge(0)));
  planner_world other({.blocks_per_group = 8, .groups = {sliding(17)}});
  const auto kept = other.add({.prompt_tokens = 31, .max_tokens = 10});
  other.step();
  other.step();  // the query at 31 sees 15 .. 31
  EXPECT_THAT(other.plans().find(kept)->block_tables[0],
              ElementsAre(testing::Ge(0), testing::Ge(0)));
}

TEST(Planner, GroupsOfLayersHaveTheirOwnBlocks) {
  planner_world world({.blocks_per_group = 8, .groups = {full, sliding(8)}});
  const auto id = world.add({.prompt_tokens = 70, .max_tokens = 3});
  world.step();
  world.step();
  const auto& tables = world.plans().find(id)->block_tables;
  ASSERT_EQ(tables.size(), 2U);
  EXPECT_THAT(tables[0], testing::Each(testing::Ge(0)));
  EXPECT_THAT(tables[1], ElementsAre(-1, -1, -1, testing::Ge(0), testing::Ge(0)));
}

TEST(Planner, RemovingASequenceFreesItsBlocks) {
  planner_world world({.blocks_per_group = 8, .groups = {full, sliding(8)}});
  const auto id = world.add({.prompt_tokens = 70, .max_tokens = 30});
  world.step();
  world.step();
  EXPECT_LT(world.plans().free_blocks(), 8);
  world.remove(id);
  EXPECT_EQ(world.plans().free_blocks(), 8);
  EXPECT_FALSE(world.plans().remove(id));
  EXPECT_EQ(world.plans().find(id), nullptr);
}

TEST(Planner, AResumedLogIsComputedWholeBeforeItGoesOn) {
  planner plans({.prefill_chunk = 8, .blocks_per_group = 8, .groups = {full}});
  auto sequence = std::make_unique<live_sequence>();
  sequence->id = base::sequence_id{1};
  sequence->log.params.seed = 42;
  sequence->log.params.choice = 3;
  sequence->log.prompt_ids = {1, 2, 3, 4, 5, 6, 7};
  sequence->log.emitted_ids = {8, 9, 10};
  plans.add(std::move(sequence));
  EXPECT_FALSE(plans.next({1, 1}).sequences.at(0).sample.has_value());
  const step_plan plan = plans.next({1, 1});
  ASSERT_EQ(plan.sequences.size(), 1U);
  EXPECT_THAT(plan.sequences[0].token_ids, ElementsAre(9, 10));
  ASSERT_TRUE(plan.sequences[0].sample.has_value());
  EXPECT_EQ(plan.sequences[0].prompt_length, 7);
  EXPECT_EQ(plan.sequences[0].sample->row.token_index, 3U);
  EXPECT_EQ(plan.sequences[0].sample->row.seed, 42U);
  EXPECT_EQ(plan.sequences[0].sample->row.choice, 3U);
}

planner_options random_options(std::mt19937& random) {
  planner_options options;
  options.max_num_batched_tokens = 1 + static_cast<std::int64_t>(random() % 80);
  options.max_num_seqs = 1 + static_cast<std::int64_t>(random() % 9);
  options.prefill_chunk = 1 + static_cast<std::int64_t>(random() % 70);
  options.blocks_per_group = 8 + static_cast<std::int64_t>(random() % 24);
  options.groups = {full};
  if (random() % 2 == 0) {
    options.groups.push_back(sliding(1 + static_cast<std::int64_t>(random() % 50)));
  }
  if (random() % 4 == 0) options.groups.erase(options.groups.begin());
  if (options.groups.empty()) options.groups = {sliding(24)};
  return options;
}

TEST(Planner, KeepsItsInvariantsUnderAnyOrderOfAddRemoveAndStep) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    planner_world world(random_options(random), seed % 2 == 0);
    const std::int64_t blocks = world.plans().options().blocks_per_group;
    for (int turn = 0; turn < 120; ++turn) {
      const auto choice = random() % 10;
      if (choice < 3) {
        // As the engine's admission: no more positions than the pool holds.
        const std::int64_t positions = 2 + static_cast<std::int64_t>(random()) % (blocks * 16 - 1);
        const std::int64_t prompt = 1 + static_cast<std::int64_t>(random()) % (positions - 1);
        world.add({.prompt_tokens = prompt,
                   .max_tokens = positions - prompt,
                   .ends_after = 1 + (positions * 7 + prompt) % (positions - prompt)});
      } else if (choice == 3 && !world.live().empty()) {
        world.remove(world.live()[random() % world.live().size()]);
      } else {
        world.step();
      }
      ASSERT_FALSE(HasFailure()) << "turn " << turn;
    }
    int steps = 0;
    for (; steps < 60000 && !world.live().empty(); ++steps) {
      world.step();
      ASSERT_FALSE(HasFailure());
    }
    ASSERT_TRUE(world.live().empty()) << world.live().size() << " never end";
    ASSERT_EQ(world.plans().free_blocks(), blocks) << "blocks leaked";
  }
}

TEST(Planner, PlansATokenThatIsBeingDrawnByItsSlot) {
  planner plans({.blocks_per_group = 8, .groups = {full}});
  for (const std::uint64_t id : {1U, 2U, 3U}) {
    auto sequence = std::make_unique<live_sequence>();
    sequence->id = base::sequence_id{id};
    sequence->log.prompt_ids = {7, 8, 9};
    sequence->log.params.max_tokens = id == 2 ? 1 : 4;
    plans.add(std::move(sequence));
  }
  const step_plan first = plans.next({1, 1});
  ASSERT_EQ(first.sequences.size(), 3U);
  EXPECT_FALSE(first.sequences[2].last_token_slot.has_value());

  // The second has its last token drawn: whatever it is, nothing follows.
  const step_plan second = plans.next({1, 1});
  ASSERT_EQ(second.sequences.size(), 2U);
  EXPECT_EQ(second.sequences[0].last_token_slot, 0U);
  EXPECT_EQ(second.sequences[1].last_token_slot, 2U);
  EXPECT_EQ(second.sequences[1].first_position, 3);
  EXPECT_EQ(second.sequences[1].token_ids.size(), 1U);
  EXPECT_EQ(second.sequences[1].sample->row.token_index, 1U);

  plans.accept(*plans.find(base::sequence_id{1}), 50);
  plans.accept(*plans.find(base::sequence_id{3}), 51);
  plans.accept(*plans.find(base::sequence_id{2}), 52);
  ASSERT_TRUE(plans.remove(base::sequence_id{2}));
  plans.accept(*plans.find(base::sequence_id{1}), 53);
  plans.accept(*plans.find(base::sequence_id{3}), 54);
  // All is known again.
  const step_plan third = plans.next({1, 1});
  ASSERT_EQ(third.sequences.size(), 2U);
  EXPECT_FALSE(third.sequences[1].last_token_slot.has_value());
  EXPECT_THAT(third.sequences[1].token_ids, ElementsAre(54));
}

TEST(Planner, TheOldestProgressesInThePoolItJustFits) {
  planner_world world({.max_num_batched_tokens = 32,
                       .max_num_seqs = 8,
                       .blocks_per_group = 4,
                       .groups = {full, sliding(5)}});
  for (int i = 0; i < 8; ++i) world.add({.prompt_tokens = 30, .max_tokens = 34});
  std::size_t last = 0;
  for (int i = 0; i < 5000 && !world.live().empty(); ++i) {
    world.step();  // checks that the oldest is planned
    last = world.ended();
  }
  EXPECT_EQ(last, 8U);
  EXPECT_GT(world.plans().preemptions(), 0U);
}

}  // namespace
}  // namespace troupe::engine
