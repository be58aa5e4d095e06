// Where requests go: like to like, while no gang has much more to do than the others.
#include "router/routing_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace troupe::router {
namespace {

std::vector<gang_load> gangs(int count) {
  std::vector<gang_load> made;
  for (int i = 0; i < count; ++i)
    made.push_back({.name_hash = hash_of("gang-" + std::to_string(i))});
  return made;
}

request_traits of_session(std::uint64_t affinity, std::int64_t tokens = 100) {
  return {.model = "m", .prompt_tokens = tokens, .affinity = affinity};
}

TEST(AffinityPolicy, SendsLikeToLikeWhateverTheOrder) {
  affinity_policy policy;
  std::vector<gang_load> all = gangs(5);
  std::mt19937_64 random(7);
  for (int i = 0; i < 200; ++i) {
    const request_traits one = of_session(random());
    const std::uint64_t first = all[policy.choose(all, one)].name_hash;
    std::ranges::shuffle(all, random);
    EXPECT_EQ(all[policy.choose(all, one)].name_hash, first);
  }
}

TEST(AffinityPolicy, SpreadsSessionsEvenly) {
  affinity_policy policy;
  const std::vector<gang_load> all = gangs(8);
  std::map<std::size_t, int> count;
  std::mt19937_64 random(11);
  constexpr int sessions_each = 1000;
  for (int i = 0; i < 8 * sessions_each; ++i) ++count[policy.choose(all, of_session(random()))];
  for (const auto& [at, n] : count) EXPECT_NEAR(n, sessions_each, 150) << at;  // 5 sigma
}

TEST(AffinityPolicy, AGangThatGoesMovesOnlyItsOwn) {
  affinity_policy policy;
  const std::vector<gang_load> all = gangs(6);
  const std::vector<gang_load> fewer(all.begin(), all.end() - 1);
  std::mt19937_64 random(13);
  for (int i = 0; i < 2000; ++i) {
    const request_traits one = of_session(random());
    const std::size_t before = policy.choose(all, one);
    if (before == fewer.size()) continue;
    EXPECT_EQ(policy.choose(fewer, one), before);
  }
}

TEST(AffinityPolicy, YieldsWhenItsGangHasTooMuch) {
  affinity_policy policy({.load_factor = 1.25, .slack_tokens = 1000});
  std::vector<gang_load> all = gangs(4);
  const request_traits one = of_session(42);
  const std::size_t home = policy.choose(all, one);
  // (tokens + 4 x 10,000) / 4 x 1.25 + 1000: up to 13,500 or so it stays.
  for (gang_load& gang : all) gang.outstanding_tokens = 10'000;
  all[home].outstanding_tokens = 13'400;
  EXPECT_EQ(policy.choose(all, one), home);
  all[home].outstanding_tokens = 20'000;
  const std::size_t second = policy.choose(all, one);
  EXPECT_NE(second, home);
  EXPECT_EQ(policy.choose(all, one), second) << "the second choice is as firm as the first";
}

TEST(AffinityPolicy, WithoutAnAffinityTakesTheLeastLoad) {
  affinity_policy policy;
  std::vector<gang_load> all = gangs(3);
  all[0].outstanding_tokens = 5;
  all[1].outstanding_tokens = 3;
  all[2].outstanding_tokens = 4;
  EXPECT_EQ(policy.choose(all, {}), 1U);
}

TEST(LeastTokensPolicy, TakesTurnsAmongEquals) {
  least_tokens_policy policy;
  const std::vector<gang_load> all = gangs(3);
  std::map<std::size_t, int> count;
  for (int i = 0; i < 30; ++i) ++count[policy.choose(all, {})];
  EXPECT_EQ(count, (std::map<std::size_t, int>{{0, 10}, {1, 10}, {2, 10}}));
}

// Whatever comes, no gang gets beyond the bound by more than one request.
TEST(AffinityPolicy, KeepsLoadsWithinTheBound) {
  const affinity_bounds bounds{.load_factor = 1.25, .slack_tokens = 500};
  affinity_policy policy(bounds);
  std::mt19937_64 random(17);
  for (int round = 0; round < 50; ++round) {
    std::vector<gang_load> all = gangs(2 + static_cast<int>(random() % 7));
    std::int64_t sum = 0;
    for (int i = 0; i < 300; ++i) {
      const request_traits one =
          of_session(random() % 3, static_cast<std::int64_t>(random() % 400));
      gang_load& chosen = all[policy.choose(all, one)];
      chosen.outstanding_tokens += one.tokens();
      sum += one.tokens();
      const double mean = static_cast<double>(sum) / static_cast<double>(all.size());
      ASSERT_LE(static_cast<double>(chosen.outstanding_tokens),
                bounds.load_factor * mean + static_cast<double>(bounds.slack_tokens) + 400.0);
    }
  }
}

TEST(MakePolicy, KnowsItsNames) {
  EXPECT_TRUE(make_policy("affinity", {}));
  EXPECT_TRUE(make_policy("least-tokens", {}));
  EXPECT_EQ(make_policy("random", {}).error().code, base::error_code::invalid_argument);
}

}  // namespace
}  // namespace troupe::router
