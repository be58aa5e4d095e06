#include "engine/step_inputs.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

planned_rows rows_of(std::int64_t first_position, std::vector<std::int32_t> token_ids,
                     std::vector<std::vector<std::int32_t>> tables) {
  planned_rows rows;
  rows.first_position = first_position;
  rows.prompt_length = first_position + static_cast<std::int64_t>(token_ids.size());
  rows.token_ids = std::move(token_ids);
  rows.block_tables = std::move(tables);
  return rows;
}

TEST(StepInputs, FlattensSequencesInThePlansOrder) {
  step_plan plan;
  plan.sequences.push_back(rows_of(0, {5, 6, 7}, {{3}}));
  plan.sequences.push_back(rows_of(17, {8}, {{9, 4}}));
  plan.sequences[1].sample = sample_request{};
  const step_inputs inputs(plan, 1);
  const models::step_batch& batch = inputs.batch();
  EXPECT_THAT(batch.token_ids, ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 17));
  ASSERT_EQ(batch.groups.size(), 1U);
  EXPECT_THAT(batch.groups[0].slots, ElementsAre(3 * 16, 3 * 16 + 1, 3 * 16 + 2, 4 * 16 + 1));
  ASSERT_EQ(batch.groups[0].sequences.size(), 2U);
  EXPECT_EQ(batch.groups[0].sequences[0].first_row, 0);
  EXPECT_EQ(batch.groups[0].sequences[0].rows, 3);
  EXPECT_EQ(batch.groups[0].sequences[1].first_row, 3);
  EXPECT_EQ(batch.groups[0].sequences[1].rows, 1);
  EXPECT_EQ(batch.groups[0].sequences[1].first_position, 17);
  EXPECT_THAT(batch.groups[0].sequences[1].block_table, ElementsAre(9, 4));
}

TEST(StepInputs, WantsTheSuccessorOfTheLastRowOfASequenceThatIsSampled) {
  step_plan plan;
  plan.sequences.push_back(rows_of(0, {5, 6, 7}, {{0}}));
  plan.sequences.push_back(rows_of(0, {8, 9}, {{1}}));
  plan.sequences.push_back(rows_of(4, {1}, {{2}}));
  plan.sequences[1].sample = sample_request{};
  plan.sequences[2].sample = sample_request{};
  EXPECT_THAT(step_inputs(plan, 1).batch().logits_rows, ElementsAre(4, 5));
  plan.sequences[1].sample.reset();
  plan.sequences[2].sample.reset();
  EXPECT_THAT(step_inputs(plan, 1).batch().logits_rows, IsEmpty());
}

TEST(StepInputs, EveryGroupHasItsOwnSlots) {
  step_plan plan;
  plan.sequences.push_back(rows_of(15, {5, 6}, {{0, 1}, {-1 + 8, 2}}));
  const step_inputs inputs(plan, 2);
  EXPECT_THAT(inputs.batch().groups[0].slots, ElementsAre(15, 16));
  EXPECT_THAT(inputs.batch().groups[1].slots, ElementsAre(7 * 16 + 15, 2 * 16));
}

TEST(StepInputs, BlocksOutOfTheWindowMayBeMissingWhereNothingIsWritten) {
  step_plan plan;
  plan.sequences.push_back(rows_of(32, {5}, {{-1, -1, 6}}));
  const step_inputs inputs(plan, 1);
  EXPECT_THAT(inputs.batch().groups[0].slots, ElementsAre(6 * 16));
}

TEST(StepInputs, APromptTurnsByItsWholeLengthAndEachLaterTokenByItsOwn) {
  // What dynamic rotary scaling needs: the same for a prompt in one chunk or in many.
  step_plan plan;
  plan.sequences.push_back(rows_of(8, {1, 2, 3, 4}, {{0}}));
  plan.sequences[0].prompt_length = 10;
  EXPECT_THAT(step_inputs(plan, 1).batch().rope_lengths, ElementsAre(10, 10, 11, 12));
}

TEST(StepInputsDeathTest, RefusesToWriteWhereThereIsNoBlock) {
  step_plan plan;
  plan.sequences.push_back(rows_of(16, {5}, {{0}}));
  EXPECT_DEATH(step_inputs(plan, 1), "table");
  plan.sequences[0].block_tables = {{0, -1}};
  EXPECT_DEATH(step_inputs(plan, 1), "table");
  plan.sequences[0].block_tables = {};
  EXPECT_DEATH(step_inputs(plan, 1), "groups");
}

}  // namespace
}  // namespace troupe::engine
