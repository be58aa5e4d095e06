// Two nodes with copies of a model: a gang that forms only where the copies are the same.
#include <gtest/gtest.h>

#include <regex>

#include "tests/gang/two_hosts.hpp"

namespace troupe::gang_test {
namespace {

namespace fs = std::filesystem;

class OtherWeights : public testing::Test {
 protected:
  void SetUp() override {
    if (!hosts_.made()) GTEST_SKIP() << "needs root and the ip program for network namespaces";
    for (const char* name : {"a", "b"}) {
      fs::copy(fs::path(TROUPE_SOURCE_DIR) / "models/demo/files", folder_.path() / name);
    }
  }
  [[nodiscard]] std::string model(const char* name) const {
    return (folder_.path() / name).string();
  }
  [[nodiscard]] std::array<two_host_gang::node_setup, 2> models() const {
    return {two_host_gang::node_setup{.model = model("a")},
            two_host_gang::node_setup{.model = model("b")}};
  }
  void flip_on_node_1() const {
    const fs::path path = folder_.path() / "b" / "model.safetensors";
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(-1, std::ios::end);
    const int value = file.get();
    file.seekp(-1, std::ios::end);
    file.put(static_cast<char>(value ^ 1));
  }
  static bool says(served_gang& node, const std::regex& line) {
    return std::regex_search(node.log(), line);
  }

  const cli::test::temporary_folder folder_;
  two_hosts hosts_;
};

TEST_F(OtherWeights, OfOneByteAreRefusedInOneLineOnBothNodes) {
  flip_on_node_1();
  two_host_gang gang(hosts_, "tls", models());
  const std::regex line(
      "rank 1 \\([^)]*\\) has other weights than the leader: share digest [0-9a-f]{16}, expected "
      "[0-9a-f]{16}; compare the files of both machines");
  const bool said =
      wait_until([&] { return says(gang.front(), line) && says(gang.node(1), line); }, 60s);
  EXPECT_TRUE(said) << gang.front().log() << gang.node(1).log();
  EXPECT_EQ(gang.front().status("/ready"), 503);
  EXPECT_EQ(gang.front().events("ready").size(), 0U);
  EXPECT_EQ(gang.front().metric("troupe_engine_steps_total"), 0.0);
}

TEST_F(OtherWeights, OfTheSameBytesServe) {
  two_host_gang gang(hosts_, "tls", models());
  ASSERT_TRUE(gang.front().ready_within()) << gang.front().log() << gang.node(1).log();
  json body = completion_body(5);
  body["model"] = model("a");
  open_stream stream(gang.front().url(), body);
  stream.join();
  EXPECT_FALSE(stream.failed()) << stream.error();
}

}  // namespace
}  // namespace troupe::gang_test
