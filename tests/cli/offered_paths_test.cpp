#include "cli/offered_paths.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace troupe::cli {
namespace {

using kernels::instruction_path;
using testing::ElementsAre;

const std::vector<instruction_path> of_the_machine = {
    instruction_path::amx_bf16, instruction_path::avx512_bf16, instruction_path::avx2};

TEST(OfferedPaths, AreAllOfTheMachineWhereNothingIsAskedFor) {
  EXPECT_EQ(offered_paths(instruction_path::amx_bf16, false, of_the_machine), of_the_machine);
}

TEST(OfferedPaths, AreTheOneThatIsAskedFor) {
  EXPECT_THAT(offered_paths(instruction_path::avx512_bf16, true, of_the_machine),
              ElementsAre(instruction_path::avx512_bf16));
}

TEST(OfferedPaths, OfAGpuAreItsOwn) {
  EXPECT_THAT(offered_paths(instruction_path::cuda_sm90, false, of_the_machine),
              ElementsAre(instruction_path::cuda_sm90));
}

}  // namespace
}  // namespace troupe::cli
