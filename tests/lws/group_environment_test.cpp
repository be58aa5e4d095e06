#include "lws/group_environment.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace troupe::lws {
namespace {

base::result<group_environment> read(const std::map<std::string, std::string>& variables) {
  return read_group_environment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(GroupEnvironment, IsEmptyOutsideOfAGroup) {
  const auto group = read({});
  ASSERT_TRUE(group);
  EXPECT_FALSE(group->size || group->worker_index || group->leader_address || group->subgroup_size);
}

TEST(GroupEnvironment, ReadsWhatLwsPutsIntoAPod) {
  const auto group = read({{"LWS_LEADER_ADDRESS", "llm-0.llm.default"},
                           {"LWS_GROUP_SIZE", "4"},
                           {"LWS_WORKER_INDEX", "3"},
                           {"TROUPE_LWS_SUBGROUP_SIZE", "2"}});
  ASSERT_TRUE(group);
  EXPECT_EQ(group->leader_address, "llm-0.llm.default");
  EXPECT_EQ(group->size, 4);
  EXPECT_EQ(group->worker_index, 3);
  EXPECT_EQ(group->subgroup_size, 2);
}

// The downward API gives an empty text where a pod has no such annotation.
TEST(GroupEnvironment, TakesAnEmptyVariableForNone) {
  const auto group = read({{"LWS_GROUP_SIZE", "2"}, {"TROUPE_LWS_SUBGROUP_SIZE", ""}});
  ASSERT_TRUE(group);
  EXPECT_FALSE(group->subgroup_size);
}

TEST(GroupEnvironment, RefusesWhatIsNoNumberOfThisGroup) {
  const std::map<std::string, std::string> wrong[] = {
      {{"LWS_GROUP_SIZE", "two"}},
      {{"LWS_GROUP_SIZE", "0"}},
      {{"LWS_GROUP_SIZE", "65"}},
      {{"LWS_GROUP_SIZE", "2x"}},
      {{"LWS_GROUP_SIZE", "99999999999"}},
      {{"LWS_GROUP_SIZE", "2"}, {"LWS_WORKER_INDEX", "2"}},
      {{"LWS_GROUP_SIZE", "2"}, {"LWS_WORKER_INDEX", "-1"}},
      {{"LWS_GROUP_SIZE", "2"}, {"TROUPE_LWS_SUBGROUP_SIZE", "3"}}};
  for (const auto& variables : wrong) {
    const auto group = read(variables);
    ASSERT_FALSE(group) << variables.rbegin()->second;
    // Names the variable that is wrong.
    EXPECT_NE(group.error().message.find("is \""), std::string::npos) << group.error().message;
    EXPECT_EQ(group.error().code, base::error_code::invalid_argument);
  }
}

TEST(DefaultLayout, HasOneRankAPod) {
  for (int pods = 1; pods <= group_size_max; ++pods) {
    const auto chosen = default_layout(pods, std::nullopt);
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->tensor_parallel_size * chosen->pipeline_parallel_size, pods);
    const bool shared = pods == 1 || pods == 2 || pods == 4 || pods == 8;
    EXPECT_EQ(chosen->tensor_parallel_size, shared ? pods : 1) << pods;
  }
}

TEST(DefaultLayout, MakesAStageOfEachSubgroup) {
  const auto chosen = default_layout(8, 4);
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->tensor_parallel_size, 4);
  EXPECT_EQ(chosen->pipeline_parallel_size, 2);
}

TEST(DefaultLayout, RefusesSubgroupsThatAreNoStages) {
  EXPECT_FALSE(default_layout(6, 3));  // layers are not cut in three
  EXPECT_FALSE(default_layout(9, 4));  // the leader beside two subgroups
}

}  // namespace
}  // namespace troupe::lws
