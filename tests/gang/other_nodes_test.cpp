// Two nodes that do not fit: each difference is refused in one line, on both, that says which rank
// differs in what. And nodes that do, in any order.
#include <gtest/gtest.h>

#include <regex>

#include "kernels/numerics.hpp"
#include "tests/gang/two_hosts.hpp"

namespace troupe::gang_test {
namespace {

namespace fs = std::filesystem;
using node_setup = two_host_gang::node_setup;

struct difference {
  const char* name;
  std::vector<std::string> more;  // of node 1
  const char* line;               // a pattern
};

std::vector<difference> differences() {
  return {
      {"sequences",
       {"--max-num-seqs", "5"},
       "differs in max_num_seqs: 5, the leader has 16; give every node the same flags"},
      {"dtype",
       {"--dtype", "float32"},
       "differs in dtype: float32, the leader has bfloat16; give every node the same flags"},
      {"layout",
       {"--tensor-parallel-size", "1", "--pipeline-parallel-size", "2"},
       "differs in tensor_parallel_size: 1, the leader has 2; give every node the same flags"},
      {"data_plane",
       {"--data-plane", "ucx"},
       "differs in data_plane: ucx, the leader has tls; give every node the same flags"},
  };
}

class OtherNodes : public testing::TestWithParam<difference> {
 protected:
  void SetUp() override {
    if (!hosts_.made()) GTEST_SKIP() << "needs root and the ip program for network namespaces";
  }
  void expect_refused(const std::array<node_setup, 2>& setups, const std::string& line) {
    two_host_gang gang(hosts_, "tls", setups);
    const std::regex whole("rank 1 \\([^)]*\\) " + line);
    const bool said = wait_until(
        [&] {
          return std::regex_search(gang.front().log(), whole) &&
                 std::regex_search(gang.node(1).log(), whole);
        },
        60s);
    EXPECT_TRUE(said) << gang.front().log() << gang.node(1).log();
    EXPECT_EQ(gang.front().status("/health"), 200);
    EXPECT_EQ(gang.front().status("/ready"), 503);
    EXPECT_EQ(gang.front().events("ready").size(), 0U);
  }

  const cli::test::temporary_folder folder_;
  two_hosts hosts_;
};

// The program with another build id, and nothing else changed.
fs::path other_build(const fs::path& folder) {
  std::string bytes = cli::test::read_file(TROUPE_BINARY);
  // A note: sizes of its name and content, its type 3, its name. Source: gabi, "Note Section".
  const std::string head("\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", 16);
  const auto at = bytes.find(head);
  if (at == std::string::npos) return {};
  bytes[at + head.size()] = static_cast<char>(bytes[at + head.size()] ^ 1);
  const fs::path path = folder / "troupe";
  std::ofstream(path, std::ios::binary) << bytes;
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

std::string best_path() {
  return std::string(to_string(kernels::supported_paths(kernels::dtype::bfloat16).front()));
}

TEST_P(OtherNodes, AreRefusedInOneLineOnBoth) {
  expect_refused({node_setup{}, node_setup{.more = GetParam().more}}, GetParam().line);
}

TEST_F(OtherNodes, OfAnotherBuildAreRefused) {
  const fs::path binary = other_build(folder_.path());
  ASSERT_FALSE(binary.empty());
  expect_refused({node_setup{}, node_setup{.binary = binary.string()}},
                 "differs in build: [^ ,]+, the leader has [^ ,]+; run the same binary on every "
                 "node");
}

// What a rollout of a LeaderWorkerSet shows for a moment: a new leader beside old workers.
TEST_F(OtherNodes, OfAnotherRevisionAreRefused) {
  expect_refused(
      {node_setup{.more = {"--revision", "b2"}}, node_setup{.more = {"--revision", "a1"}}},
      "differs in build: [^ ,]+ of revision a1, the leader has [^ ,]+ of revision b2; "
      "run the same binary on every node");
}

TEST_F(OtherNodes, WithAnotherPathAskedForAreRefused) {
  const std::string best = best_path();
  if (best == "avx2") GTEST_SKIP() << "this CPU has one instruction path";
  expect_refused(
      {node_setup{.more = {"--numerics", best}}, node_setup{.more = {"--numerics", "avx2"}}},
      "offers none of the gang's instruction paths " + best +
          ": it offers avx2; give every node the same --numerics, or none");
}

TEST_F(OtherNodes, TakeThePathThatOneOfThemAsksFor) {
  two_host_gang gang(hosts_, "tls", {node_setup{}, node_setup{.more = {"--numerics", "avx2"}}});
  ASSERT_TRUE(gang.front().ready_within()) << gang.front().log() << gang.node(1).log();
  // HTTP answers a moment before the line is on stdout.
  ASSERT_TRUE(wait_until([&] { return !gang.front().events("ready").empty(); }));
  EXPECT_EQ(gang.front().events("ready").back()["instruction_path"], "avx2");
}

TEST_F(OtherNodes, ThatStartBeforeTheLeaderSayWhatTheyWaitForAndServeWithIt) {
  const auto gang = two_host_gang::empty(hosts_, "tls");
  gang->start(1, {});
  EXPECT_TRUE(wait_until([&] {
    return gang->node(1).log().find("rank 1 looks for the leader at") != std::string::npos;
  })) << gang->node(1).log();
  gang->start(0, {});
  ASSERT_TRUE(gang->front().ready_within()) << gang->front().log() << gang->node(1).log();
  EXPECT_EQ(gang->front().metric("troupe_repairs_total"), 0.0);
}

INSTANTIATE_TEST_SUITE_P(Differences, OtherNodes, testing::ValuesIn(differences()),
                         [](const testing::TestParamInfo<difference>& of) {
                           return std::string(of.param.name);
                         });

}  // namespace
}  // namespace troupe::gang_test
