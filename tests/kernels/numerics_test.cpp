#include "kernels/numerics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cpu_ops.hpp"

namespace troupe::kernels {
namespace {

constexpr auto every_path = {instruction_path::amx_bf16, instruction_path::avx512_bf16,
                             instruction_path::avx512, instruction_path::avx2};

TEST(Numerics, PathsAreReadAsTheyArePrinted) {
  for (const instruction_path path : every_path) {
    EXPECT_EQ(parse_instruction_path(to_string(path)), path);
  }
  for (const char* text : {"", "amx", "AVX2", "avx2 ", "avx512_bf16x"}) {
    EXPECT_EQ(parse_instruction_path(text), std::nullopt) << text;
  }
}

TEST(Numerics, ProfilePrintsAllThatBitsDependOn) {
  const numerics_profile profile{.path = instruction_path::amx_bf16,
                                 .weights = dtype::bfloat16,
                                 .kv_cache = dtype::float32,
                                 .version = 3};
  EXPECT_EQ(to_string(profile), "amx_bf16/bfloat16/kv-float32/v3");
  const numerics_profile kept{.path = instruction_path::cuda_sm90,
                              .weights = dtype::bfloat16,
                              .kv_cache = dtype::bfloat16,
                              .version = 3,
                              .kept = quantisation::float8_blocks};
  EXPECT_EQ(to_string(kept), "cuda_sm90/float8_blocks/kv-bfloat16/v3");
}

TEST(Numerics, FasterPathsComeFirstAndImplyTheSlower) {
  const std::vector<instruction_path> found = supported_paths(dtype::bfloat16);
  if (found.empty()) GTEST_SKIP() << "this CPU has no AVX2";
  EXPECT_TRUE(std::is_sorted(found.begin(), found.end()));
  EXPECT_EQ(found.back(), instruction_path::avx2);
  const auto has = [&](instruction_path path) {
    return std::find(found.begin(), found.end(), path) != found.end();
  };
  EXPECT_TRUE(!has(instruction_path::amx_bf16) || has(instruction_path::avx512_bf16));
  EXPECT_TRUE(!has(instruction_path::avx512_bf16) || has(instruction_path::avx512));
}

TEST(Numerics, PathsOfAGpuAreNoneOfTheCpus) {
  for (const auto path :
       {instruction_path::cuda_sm80, instruction_path::cuda_sm90, instruction_path::cuda_sm100}) {
    EXPECT_TRUE(on_cuda(path));
    EXPECT_EQ(parse_instruction_path(to_string(path)), path);
    for (const auto of_cpu : supported_paths(dtype::bfloat16)) EXPECT_NE(of_cpu, path);
    EXPECT_FALSE(make_cpu_ops(path).has_value());
  }
  EXPECT_FALSE(on_cuda(instruction_path::avx2));
}

TEST(Numerics, Float32HasNoPathOfItsOwnOnBfloat16Instructions) {
  for (const instruction_path path : supported_paths(dtype::float32)) {
    EXPECT_TRUE(path == instruction_path::avx512 || path == instruction_path::avx2);
  }
}

TEST(CpuOps, AreMadeForEveryPathThisCpuHasAndNoOther) {
  const std::vector<instruction_path> able = supported_paths(dtype::bfloat16);
  for (const instruction_path path : every_path) {
    const auto made = make_cpu_ops(path);
    const bool expected = std::find(able.begin(), able.end(), path) != able.end();
    ASSERT_EQ(made.has_value(), expected) << to_string(path);
    if (expected) continue;
    EXPECT_EQ(made.error().code, base::error_code::failed_precondition);
    EXPECT_THAT(made.error().message, testing::HasSubstr(to_string(path)));
    for (const instruction_path other : able) {
      EXPECT_THAT(made.error().message, testing::HasSubstr(to_string(other)));
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
