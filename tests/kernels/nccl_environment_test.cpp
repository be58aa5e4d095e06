#include "kernels/nccl_environment.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

namespace troupe::kernels {
namespace {

class NcclEnvironment : public ::testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    unsetenv("NCCL_SOCKET_IFNAME");
    unsetenv("NCCL_RAS_ENABLE");
  }
};

TEST_F(NcclEnvironment, BindsToOneDeviceAndOpensNoMonitor) {
  ASSERT_TRUE(prepare_nccl_environment("lo").has_value());
  EXPECT_STREQ(getenv("NCCL_SOCKET_IFNAME"), "=lo");
  EXPECT_STREQ(getenv("NCCL_RAS_ENABLE"), "0");
}

TEST_F(NcclEnvironment, LeavesWhatTheUserHasSet) {
  setenv("NCCL_SOCKET_IFNAME", "ib0", 1);
  ASSERT_TRUE(prepare_nccl_environment("lo").has_value());
  EXPECT_STREQ(getenv("NCCL_SOCKET_IFNAME"), "ib0");
}

TEST_F(NcclEnvironment, RefusesWhatIsNoDevice) {
  for (const char* const name : {"", "eth0,eth1", "^lo", "=lo", "a b"}) {
    EXPECT_FALSE(prepare_nccl_environment(name).has_value()) << name;
  }
  EXPECT_EQ(getenv("NCCL_SOCKET_IFNAME"), nullptr);
}

}  // namespace
}  // namespace troupe::kernels
