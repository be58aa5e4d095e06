// The same bits over processes as over threads, at every size: the whole JSON but the timings.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.hpp"

namespace troupe::gang_test {
namespace {

using nlohmann::json;

struct shape {
  int tp = 1;
  int pp = 1;
};

class ProcessesGiveTheBitsOfThreads : public testing::TestWithParam<shape> {};

json generate(const std::string& model, const std::string& ranks, shape of) {
  const auto got = cli::test::run({"generate",
                                   model,
                                   "--prompt-token-ids",
                                   "5,9,2,40,7,3,11,8,21,30,31,32,33,34,35,36,37",
                                   "--max-tokens",
                                   "40",
                                   "--n",
                                   "3",
                                   "--temperature",
                                   "0.8",
                                   "--top-p",
                                   "0.95",
                                   "--seed",
                                   "77",
                                   "--ignore-eos",
                                   "--logprobs",
                                   "3",
                                   "--max-num-batched-tokens",
                                   "11",
                                   "--output",
                                   "json",
                                   "--ranks",
                                   ranks,
                                   "--tensor-parallel-size",
                                   std::to_string(of.tp),
                                   "--pipeline-parallel-size",
                                   std::to_string(of.pp)});
  EXPECT_EQ(got.code, 0) << got.err;
  json out = json::parse(got.out, nullptr, false);
  out.erase("timings");
  return out;
}

TEST_P(ProcessesGiveTheBitsOfThreads, AtThisSize) {
  for (const std::string& model : {std::string("demo"), cli::test::model("llama_14_heads_2_kv")}) {
    const json threads = generate(model, "threads", {});
    EXPECT_EQ(generate(model, "processes", GetParam()), threads) << model;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ProcessesGiveTheBitsOfThreads,
                         testing::Values(shape{1, 1}, shape{2, 1}, shape{4, 1}, shape{8, 1},
                                         shape{1, 2}, shape{2, 2}, shape{4, 2}),
                         [](const testing::TestParamInfo<shape>& size) {
                           return "tp" + std::to_string(size.param.tp) + "_pp" +
                                  std::to_string(size.param.pp);
                         });

}  // namespace
}  // namespace troupe::gang_test
