#include "engine/step_inputs.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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

models::rope rope_of_two_angles() {
  models::model_config config;
  config.head_dim = 4;
  config.max_position_embeddings = 4096;
  return models::rope::make(config).value();
}

// The inputs of a plan and all they borrow.
class laid_out {
 public:
  laid_out(const step_plan& plan, std::size_t groups)
      : laid_out(plan, step_shape::of(plan, groups)) {}
  laid_out(const step_plan& plan, const step_shape& shape, spare_blocks spare = {.first = 99},
           std::vector<std::int32_t> last_tokens = {})
      : rope_(rope_of_two_angles()),
        angles_(rope_),
        memory_(step_inputs::bytes(shape, angles_.half())),
        inputs_(plan, last_tokens, shape, angles_, memory_, spare) {}

  const step_inputs* operator->() const { return &inputs_; }

 private:
  models::rope rope_;
  angle_table angles_;
  std::vector<std::byte> memory_;
  step_inputs inputs_;
};

TEST(StepInputs, FlattensSequencesInThePlansOrder) {
  step_plan plan;
  plan.sequences.push_back(rows_of(0, {5, 6, 7}, {{3}}));
  plan.sequences.push_back(rows_of(17, {8}, {{9, 4}}));
  plan.sequences[1].sample = sample_request{};
  const laid_out inputs(plan, 1);
  const models::step_batch& batch = inputs->batch();
  EXPECT_THAT(batch.token_ids, ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(inputs->positions(), ElementsAre(0, 1, 2, 17));
  // Two angles a token, turned by the position: the first frequency is 1.
  ASSERT_EQ(batch.cos.size(), 8U);
  EXPECT_EQ(batch.cos[6], std::cos(17.0F));
  EXPECT_EQ(batch.sin[6], std::sin(17.0F));
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

TEST(StepInputs, PutsTokensOfTheStepBeforeInTheirPlaces) {
  step_plan plan;
  plan.sequences.push_back(rows_of(0, {5, 6, 0}, {{3}}));
  plan.sequences[0].last_token_slot = 1;
  plan.sequences.push_back(rows_of(17, {0}, {{9, 4}}));
  plan.sequences[1].last_token_slot = 0;
  const laid_out inputs(plan, step_shape::of(plan, 1), {.first = 99}, {70, 71});
  EXPECT_THAT(inputs->batch().token_ids, ElementsAre(5, 6, 71, 70));
}

TEST(StepInputs, WantsTheSuccessorOfTheLastRowOfASequenceThatIsSampled) {
  step_plan plan;
  plan.sequences.push_back(rows_of(0, {5, 6, 7}, {{0}}));
  plan.sequences.push_back(rows_of(0, {8, 9}, {{1}}));
  plan.sequences.push_back(rows_of(4, {1}, {{2}}));
  plan.sequences[1].sample = sample_request{};
  plan.sequences[2].sample = sample_request{};
  EXPECT_THAT(laid_out(plan, 1)->batch().logits_rows, ElementsAre(4, 5));
  plan.sequences[1].sample.reset();
  plan.sequences[2].sample.reset();
  EXPECT_THAT(laid_out(plan, 1)->batch().logits_rows, IsEmpty());
}

TEST(StepInputs, EveryGroupHasItsOwnSlots) {
  step_plan plan;
  plan.sequences.push_back(rows_of(15, {5, 6}, {{0, 1}, {-1 + 8, 2}}));
  const laid_out inputs(plan, 2);
  EXPECT_THAT(inputs->batch().groups[0].slots, ElementsAre(15, 16));
  EXPECT_THAT(inputs->batch().groups[1].slots, ElementsAre(7 * 16 + 15, 2 * 16));
}

TEST(StepInputs, BlocksOutOfTheWindowMayBeMissingWhereNothingIsWritten) {
  step_plan plan;
  plan.sequences.push_back(rows_of(32, {5}, {{-1, -1, 6}}));
  const laid_out inputs(plan, 1);
  EXPECT_THAT(inputs->batch().groups[0].slots, ElementsAre(6 * 16));
}

TEST(StepInputs, APromptTurnsByItsWholeLengthAndEachLaterTokenByItsOwn) {
  // What dynamic rotary scaling needs: the same for a prompt in one chunk or in many.
  step_plan plan;
  plan.sequences.push_back(rows_of(8, {1, 2, 3, 4}, {{0}}));
  plan.sequences[0].prompt_length = 10;
  EXPECT_THAT(laid_out(plan, 1)->rope_lengths(), ElementsAre(10, 10, 11, 12));
}

TEST(StepInputs, PaddedSequencesTouchSpareBlocksOnly) {
  step_plan plan;
  plan.sequences.push_back(rows_of(17, {8}, {{9, 4}}));
  plan.sequences[0].sample = sample_request{.row = {.temperature = 1.0F, .seed = 7}};
  const step_shape shape = step_shape::of(plan, 1).padded(3, 8);
  const laid_out inputs(plan, shape, {.first = 99, .pads = true});
  const models::step_batch& batch = inputs->batch();
  EXPECT_THAT(batch.token_ids, ElementsAre(8, 0, 0));
  EXPECT_THAT(inputs->positions(), ElementsAre(17, 0, 0));
  EXPECT_THAT(batch.groups[0].slots, ElementsAre(4 * 16 + 1, 99 * 16 + 1, 99 * 16 + 2));
  EXPECT_THAT(batch.groups[0].sequences[0].block_table, ElementsAre(9, 4, 99, 99, 99, 99, 99, 99));
  EXPECT_THAT(batch.groups[0].sequences[2].block_table, testing::Each(99));
  EXPECT_THAT(batch.logits_rows, ElementsAre(0, 1, 2));
  ASSERT_EQ(inputs->sampling().size(), 3U);
  EXPECT_EQ(inputs->sampling()[0].seed, 7U);
  EXPECT_EQ(inputs->sampling()[1].temperature, 0.0F);
}

TEST(StepInputs, WhatIsStoredIsReadAndNotWritten) {
  step_plan plan;
  plan.sequences.push_back(rows_of(16, {5}, {{0, 1}}));
  plan.sequences.push_back(rows_of(31, {6, 7}, {{3, 4, 5}}));
  plan.sequences[1].stored = 32;
  const laid_out inputs(plan, 1);
  const auto& group = inputs->batch().groups[0];
  EXPECT_THAT(group.slots, ElementsAre(1 * 16, 99 * 16 + 1, 5 * 16));
  EXPECT_THAT(group.sequences[1].block_table, ElementsAre(3, 4, 5));
}

TEST(StepInputs, EqualShapesHaveEqualLayouts) {
  step_plan plan;
  plan.sequences.push_back(rows_of(17, {8}, {{9, 4}}));
  plan.sequences[0].sample = sample_request{};
  const step_shape shape = step_shape::of(plan, 1).padded(2, 8);
  const laid_out one(plan, shape, {.first = 7, .pads = true});
  plan.sequences.push_back(rows_of(40, {3}, {{1, 2, 3}}));
  plan.sequences[1].sample = sample_request{};
  ASSERT_EQ(step_shape::of(plan, 1).padded(2, 8), shape);
  const laid_out two(plan, shape, {.first = 7, .pads = true});
  const auto places = [](const laid_out& of) {
    const models::step_batch& batch = of->batch();
    const auto* const begin = reinterpret_cast<const std::byte*>(batch.token_ids.data());
    std::vector<std::ptrdiff_t> offsets;
    for (const void* part : std::initializer_list<const void*>{
             batch.cos.data(), batch.sin.data(), batch.logits_rows.data(), of->sampling().data(),
             batch.groups[0].slots.data(), batch.groups[0].sequences.data(),
             batch.groups[0].sequences[0].block_table.data(),
             batch.groups[0].sequences[1].block_table.data()}) {
      offsets.push_back(static_cast<const std::byte*>(part) - begin);
    }
    return offsets;
  };
  EXPECT_EQ(places(one), places(two));
}

TEST(StepInputsDeathTest, RefusesToWriteWhereThereIsNoBlock) {
  step_plan plan;
  plan.sequences.push_back(rows_of(16, {5}, {{0}}));
  EXPECT_DEATH(laid_out(plan, 1), "table");
  plan.sequences[0].block_tables = {{0, -1}};
  EXPECT_DEATH(laid_out(plan, 1), "table");
  plan.sequences[0].block_tables = {};
  EXPECT_DEATH(laid_out(plan, 1), "groups");
  plan.sequences[0].block_tables = {{0, 1}};
  plan.sequences[0].stored = 18;
  EXPECT_DEATH(laid_out(plan, 1), "stored");
}

}  // namespace
}  // namespace troupe::engine
