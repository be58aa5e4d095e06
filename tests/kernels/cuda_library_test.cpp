// Looking for the CUDA backend from a process that does not compute.
#include "kernels/cuda_library.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cerrno>

namespace troupe::kernels {
namespace {

TEST(CudaProbe, ApartAnswersAsItWouldHere) {
  const auto apart = probe_cuda_apart();  // first: what is looked up here stays in this process
  const auto here = probe_cuda();
  ASSERT_EQ(apart.has_value(), here.has_value());
  if (here) {
    EXPECT_EQ(apart->devices, here->devices);
    EXPECT_EQ(apart->path, here->path);
    return;
  }
  EXPECT_EQ(apart.error().code, here.error().code);
  EXPECT_EQ(apart.error().message, here.error().message);
}

TEST(CudaProbe, ApartLeavesNoChild) {
  static_cast<void>(probe_cuda_apart());
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace troupe::kernels
