// Names of blocks, and what the planner does with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/prefix_chain.hpp"
#include "tests/engine/planner_world.hpp"

namespace troupe::engine {
namespace {

const models::kv_spec full{};
models::kv_spec sliding(std::int64_t window) {
  return {.kind = models::kv_kind::sliding, .window = window};
}

sequence_log log_of(std::int64_t tokens, cache_scope scope = {}) {
  sequence_log log;
  log.scope = std::move(scope);
  for (std::int64_t i = 0; i < tokens; ++i) {
    log.prompt_ids.push_back(static_cast<std::int32_t>(i * 7 % 1000));
  }
  return log;
}

prefix_chain chain_of(const sequence_log& log, const prefix_cache_options& options = {}) {
  prefix_chain chain(options, log);
  chain.extend(log, log.size());
  return chain;
}

TEST(PrefixChain, NamesFullBlocksOnly) {
  EXPECT_EQ(chain_of(log_of(15)).size(), 0U);
  EXPECT_EQ(chain_of(log_of(16)).size(), 1U);
  EXPECT_EQ(chain_of(log_of(47)).size(), 2U);
}

TEST(PrefixChain, ANameDependsOnEveryTokenBeforeIt) {
  const prefix_chain chain = chain_of(log_of(48));
  for (std::size_t at = 0; at < 48; ++at) {
    sequence_log other = log_of(48);
    ++other.prompt_ids[at];
    const prefix_chain changed = chain_of(other);
    for (std::size_t block = 0; block < 3; ++block) {
      EXPECT_EQ(chain.key(block) == changed.key(block), block < at / 16) << at << " " << block;
    }
  }
}

TEST(PrefixChain, ANameDependsOnKeyTenantSaltAndModel) {
  const sequence_log log = log_of(16);
  const base::digest name = chain_of(log).key(0);
  prefix_cache_options options;
  options.key[31] = 1;
  EXPECT_NE(chain_of(log, options).key(0), name);
  options = {};
  options.model = "another";
  EXPECT_NE(chain_of(log, options).key(0), name);
  EXPECT_NE(chain_of(log_of(16, {.tenant = "a"})).key(0), name);
  EXPECT_NE(chain_of(log_of(16, {.salt = "a"})).key(0), name);
  EXPECT_NE(chain_of(log_of(16, {.tenant = "a"})).key(0),
            chain_of(log_of(16, {.salt = "a"})).key(0));
  EXPECT_NE(chain_of(log_of(16, {.tenant = "ab", .salt = "c"})).key(0),
            chain_of(log_of(16, {.tenant = "a", .salt = "bc"})).key(0));
}

TEST(PrefixChain, ThePromptsLengthIsInTheNameWhereRotationsDependOnIt) {
  const prefix_cache_options plain;
  prefix_cache_options dynamic;
  dynamic.depends_on_length = true;
  EXPECT_EQ(chain_of(log_of(16), plain).key(0), chain_of(log_of(20), plain).key(0));
  EXPECT_NE(chain_of(log_of(16), dynamic).key(0), chain_of(log_of(20), dynamic).key(0));
}

TEST(PrefixChain, GrowsWithTheLogToTheSameNames) {
  const sequence_log whole = log_of(64);
  sequence_log growing = log_of(20);
  prefix_chain chain({}, growing);
  chain.extend(growing, 20);
  for (std::size_t i = 20; i < 64; ++i) {
    growing.emitted_ids.push_back(whole.prompt_ids[i]);
    chain.extend(growing, growing.size());
  }
  ASSERT_EQ(chain.size(), 4U);
  for (std::size_t block = 0; block < 4; ++block) {
    EXPECT_EQ(chain.key(block), chain_of(whole).key(block));
  }
}

planner_options caching(std::int64_t blocks, std::vector<models::kv_spec> groups = {full}) {
  planner_options options{.max_num_batched_tokens = 64, .prefill_chunk = 64};
  options.blocks_per_group = blocks;
  options.groups = std::move(groups);
  options.prefix_cache.enabled = true;
  return options;
}

void finish(planner_world& world) {
  for (int i = 0; i < 2000 && !world.live().empty(); ++i) world.step();
  ASSERT_TRUE(world.live().empty());
}

TEST(PrefixCache, ARepeatedPromptComputesItsLastTokenOnly) {
  for (const std::int64_t tokens : {17, 31, 32, 33, 48}) {
    planner_world world(caching(16));
    world.add({.prompt_tokens = tokens, .shared_tokens = tokens});
    finish(world);
    const auto id = world.add({.prompt_tokens = tokens, .shared_tokens = tokens});
    const step_plan plan = world.step();
    const std::int64_t kept = std::min(tokens / 16 * 16, tokens - 1);
    EXPECT_EQ(plan.tokens(), tokens - kept) << tokens;
    EXPECT_EQ(plan.sequences[0].stored, tokens / 16 * 16);
    EXPECT_LE(plan.tokens(), 15);
    EXPECT_EQ(world.plans().prefixes().hit, static_cast<std::uint64_t>(kept));
    EXPECT_EQ(world.plans().prefixes().queried, static_cast<std::uint64_t>(2 * tokens));
    static_cast<void>(id);
  }
}

TEST(PrefixCache, SequencesOfOneStepShareABeginningOnce) {
  planner_world world(caching(16));
  for (int i = 0; i < 4; ++i)
    world.add({.prompt_tokens = 40, .max_tokens = 3, .shared_tokens = 40});
  const step_plan plan = world.step();
  ASSERT_EQ(plan.sequences.size(), 4U);
  EXPECT_EQ(plan.tokens(), 40 + 3 * 8);
  EXPECT_EQ(world.plans().free_blocks(), 16 - 2 - 4) << "two shared, one of each";
  finish(world);
}

TEST(PrefixCache, AnAnswerIsFoundByTheNextTurnOfAConversation) {
  planner_world world(caching(32));
  world.add({.prompt_tokens = 20, .max_tokens = 30});
  for (int i = 0; i < 29; ++i) world.step();
  const sequence_log first = world.plans().find(world.live()[0])->log;
  finish(world);
  auto next = std::make_unique<live_sequence>();
  next->id = base::sequence_id{1000};
  next->log.prompt_ids = first.prompt_ids;
  next->log.prompt_ids.insert(next->log.prompt_ids.end(), first.emitted_ids.begin(),
                              first.emitted_ids.end());
  next->log.prompt_ids.push_back(5);
  world.plans().add(std::move(next));
  const step_plan plan = world.plans().next({1, 1});
  EXPECT_EQ(plan.sequences.at(0).first_position, 48);
}

TEST(PrefixCache, TenantsAndSaltsShareNothing) {
  planner_world world(caching(32));
  for (const cache_scope& scope :
       {cache_scope{}, cache_scope{.tenant = "a"}, cache_scope{.tenant = "b"},
        cache_scope{.tenant = "a", .salt = "s"}}) {
    world.add({.prompt_tokens = 40, .shared_tokens = 40, .scope = scope});
    finish(world);
    EXPECT_EQ(world.plans().prefixes().hit, 0U) << scope.tenant << scope.salt;
  }
  world.add({.prompt_tokens = 40, .shared_tokens = 40, .scope = {.tenant = "b"}});
  finish(world);
  EXPECT_EQ(world.plans().prefixes().hit, 32U);
}

TEST(PrefixCache, ASlidingGroupNeedsItsWindowOnly) {
  planner_world world(caching(16, {full, sliding(20)}));
  world.add({.prompt_tokens = 100, .shared_tokens = 100});
  finish(world);
  world.add({.prompt_tokens = 100, .shared_tokens = 100});
  const step_plan plan = world.step();
  EXPECT_EQ(plan.sequences.at(0).first_position, 96);
  EXPECT_THAT(plan.sequences[0].block_tables[1],
              testing::ElementsAre(-1, -1, -1, -1, testing::Ge(0), testing::Ge(0), testing::Ge(0)));
  finish(world);
  EXPECT_EQ(world.plans().free_blocks(), 16);
}

TEST(PrefixCache, WhatIsNeededGoesBeforeWhatIsKept) {
  planner_world world(caching(4));
  world.add({.prompt_tokens = 60, .shared_tokens = 60});
  finish(world);
  world.add({.prompt_tokens = 60, .shared_tokens = 60, .family = 1});
  finish(world);
  EXPECT_EQ(world.plans().prefixes().hit, 0U);
  EXPECT_EQ(world.plans().preemptions(), 0U);
  EXPECT_EQ(world.plans().free_blocks(), 4);
}

TEST(PrefixCache, ASequenceOfNoScopeNeitherFindsNorLeavesAnything) {
  planner_world world(caching(16));
  for (int i = 0; i < 3; ++i) {
    world.add({.prompt_tokens = 40, .shared_tokens = 40, .scope = {.none = i == 1}});
    finish(world);
    EXPECT_EQ(world.plans().prefixes().hit, i == 2 ? 32U : 0U);
  }
  EXPECT_EQ(world.plans().prefixes().queried, 80U);
}

TEST(PrefixCache, OffMeansOff) {
  planner_options options = caching(16);
  options.prefix_cache.enabled = false;
  planner_world world(options);
  for (int i = 0; i < 2; ++i) {
    world.add({.prompt_tokens = 40, .shared_tokens = 40});
    finish(world);
  }
  EXPECT_EQ(world.plans().prefixes().queried, 0U);
}

// The shadow cache of planner_world checks every position that is read.
TEST(PrefixCache, NoPlanEverReadsWhatIsNotThere) {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    planner_options options = caching(6 + static_cast<std::int64_t>(random() % 30));
    options.max_num_batched_tokens = 1 + static_cast<std::int64_t>(random() % 80);
    options.max_num_seqs = 1 + static_cast<std::int64_t>(random() % 9);
    options.prefill_chunk = 1 + static_cast<std::int64_t>(random() % 70);
    if (random() % 2 == 0)
      options.groups.push_back(sliding(1 + static_cast<std::int64_t>(random() % 50)));
    if (random() % 4 == 0) options.groups = {sliding(24)};
    planner_world world(options, seed % 2 == 0);
    const std::int64_t positions = options.blocks_per_group * 16;
    for (int turn = 0; turn < 150; ++turn) {
      if (random() % 3 == 0) {
        const std::int64_t prompt = 1 + static_cast<std::int64_t>(random()) % (positions / 2);
        const std::int64_t max_tokens = 1 + static_cast<std::int64_t>(random()) % (positions / 2);
        const std::int64_t shared =
            random() % 4 == 0 ? prompt : static_cast<std::int64_t>(random()) % (prompt + 1);
        world.add({.prompt_tokens = prompt,
                   .max_tokens = std::min(max_tokens, positions - prompt),
                   .ends_after = std::min({max_tokens, positions - prompt, 1 + prompt % 40}),
                   .shared_tokens = shared,
                   .family = static_cast<std::int32_t>(random() % 3),
                   .scope = {.tenant = random() % 5 == 0 ? "other" : ""}});
      } else if (random() % 8 == 0 && !world.live().empty()) {
        world.remove(world.live()[random() % world.live().size()]);
      } else {
        world.step();
      }
      ASSERT_FALSE(HasFailure()) << "turn " << turn;
    }
    for (int steps = 0; steps < 60000 && !world.live().empty(); ++steps) {
      world.step();
      ASSERT_FALSE(HasFailure());
    }
    ASSERT_TRUE(world.live().empty());
    ASSERT_EQ(world.plans().free_blocks(), options.blocks_per_group) << "blocks leaked";
  }
}

}  // namespace
}  // namespace troupe::engine
