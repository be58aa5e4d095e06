// Pods as lists and events of the API server tell them.
#include "lws/pod_set.hpp"

#include <gtest/gtest.h>

#include <string>

namespace troupe::lws {
namespace {

using news = pod_set::news;

std::string pod(const std::string& name, const std::string& address,
                const std::string& metadata = {}, const std::string& phase = "Running") {
  return R"({"metadata":{"name":")" + name + R"(","resourceVersion":"7")" + metadata +
         R"(},"status":{"phase":")" + phase + R"(","podIP":")" + address + R"("}})";
}

std::string list(const std::string& items) {
  return R"({"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[)" + items + "]}";
}

std::string event(const std::string& type, const std::string& object) {
  return R"({"type":")" + type + R"(","object":)" + object + "}";
}

TEST(PodSet, TakesAListAndItsVersion) {
  pod_set pods;
  const auto version = pods.take_list(list(pod("b", "10.0.0.2") + "," + pod("a", "10.0.0.1")));
  ASSERT_TRUE(version) << version.error().message;
  EXPECT_EQ(*version, "5");
  const std::vector<found_pod> expected = {{.name = "a", .address = "10.0.0.1"},
                                           {.name = "b", .address = "10.0.0.2"}};
  EXPECT_EQ(pods.pods(), expected);
}

TEST(PodSet, LeavesOutWhoHasNoAddressOrHasEnded) {
  pod_set pods;
  ASSERT_TRUE(pods.take_list(list(R"({"metadata":{"name":"pending"},"status":{}},)" +
                                  pod("done", "10.0.0.1", "", "Succeeded") + "," +
                                  pod("dead", "10.0.0.2", "", "Failed"))));
  EXPECT_TRUE(pods.pods().empty());
}

TEST(PodSet, FollowsEvents) {
  pod_set pods;
  ASSERT_TRUE(pods.take_list(list("")));
  EXPECT_EQ(pods.take_event(event("ADDED", pod("a", ""))), news::none);
  EXPECT_EQ(pods.take_event(event("MODIFIED", pod("a", "10.0.0.1"))), news::changed);
  EXPECT_EQ(pods.version(), "7");
  EXPECT_EQ(pods.take_event(event("MODIFIED", pod("a", "10.0.0.1"))), news::none);
  EXPECT_EQ(
      pods.take_event(event(
          "MODIFIED", pod("a", "10.0.0.1", R"(,"deletionTimestamp":"2026-01-01T00:00:00Z")"))),
      news::changed);
  ASSERT_EQ(pods.pods().size(), 1U);
  EXPECT_TRUE(pods.pods()[0].terminating);
  EXPECT_EQ(pods.take_event(event("DELETED", pod("a", "10.0.0.1"))), news::changed);
  EXPECT_TRUE(pods.pods().empty());
}

TEST(PodSet, ABookmarkMovesTheVersionAlone) {
  pod_set pods;
  ASSERT_TRUE(pods.take_list(list(pod("a", "10.0.0.1"))));
  EXPECT_EQ(pods.take_event(event("BOOKMARK", R"({"metadata":{"resourceVersion":"99"}})")),
            news::none);
  EXPECT_EQ(pods.version(), "99");
  EXPECT_EQ(pods.pods().size(), 1U);
}

TEST(PodSet, WhatItCannotReadMeansANewList) {
  pod_set pods;
  ASSERT_TRUE(pods.take_list(list(pod("a", "10.0.0.1"))));
  EXPECT_EQ(pods.take_event(event("ERROR", R"({"kind":"Status","code":410})")), news::expired);
  EXPECT_EQ(pods.take_event("{"), news::expired);
  EXPECT_EQ(pods.pods().size(), 1U) << "what was known stays known";
  EXPECT_FALSE(pods.take_list("[]"));
  EXPECT_FALSE(pods.take_list(R"({"items":5})"));
}

}  // namespace
}  // namespace troupe::lws
