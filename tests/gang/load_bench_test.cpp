// The load generator against a real server.
#include <gtest/gtest.h>

#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

TEST(LoadBench, SaysOfAServerWhatTheServerSaysOfItself) {
  served_gang gang({"--tensor-parallel-size", "2"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const cli::test::temporary_folder folder;
  for (const std::string endpoint : {"/v1/completions", "/v1/chat/completions"}) {
    const double before = gang.metric("vllm:generation_tokens_total");
    const auto ran = cli::test::run({"bench",
                                     "--url",
                                     gang.url(),
                                     "--endpoint",
                                     endpoint,
                                     "--num-prompts",
                                     "60",
                                     "--request-rate",
                                     "300",
                                     "--prompt-tokens",
                                     "uniform:5-40",
                                     "--max-tokens",
                                     "exponential:20",
                                     "--prefix-tokens",
                                     "16",
                                     "--goodput",
                                     "ttft:60000",
                                     "--output",
                                     "json",
                                     "--plot",
                                     (folder.path() / "plot.svg").string(),
                                     "--save-requests",
                                     (folder.path() / "requests.jsonl").string()});
    ASSERT_EQ(ran.code, 0) << ran.out << ran.err;
    const json report = json::parse(ran.out);
    EXPECT_EQ(report["model"], "demo");
    EXPECT_EQ(report["completed"], 60) << report;
    EXPECT_EQ(report["completion_tokens"].get<double>(),
              gang.metric("vllm:generation_tokens_total") - before);
    EXPECT_GT(report["prompt_tokens"].get<int>(), 60 * 5);
    EXPECT_TRUE(report["ttft_ms"]["p99"].is_number());
    std::istringstream lines(cli::test::read_file(folder.path() / "requests.jsonl"));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      EXPECT_EQ(json::parse(line)["failure"], "");
    }
    EXPECT_EQ(count, 60);
    EXPECT_FALSE(cli::test::read_file(folder.path() / "plot.svg").empty());
  }
}

TEST(LoadBench, KeepsToItsConcurrencyAndTellsOfFailures) {
  served_gang gang({"--max-model-len", "64"});
  ASSERT_TRUE(gang.ready_within()) << gang.log();
  const cli::test::temporary_folder folder;
  const std::string trace =
      folder.write("trace.jsonl",
                   "{\"timestamp\":0,\"input_length\":10,\"output_length\":20}\n"
                   "{\"timestamp\":1,\"input_length\":100,\"output_length\":20}\n"
                   "{\"timestamp\":2,\"input_length\":12,\"output_length\":20}\n");
  const auto ran = cli::test::run({"bench", "--url", gang.url() + "/v1/", "--trace", trace,
                                   "--max-concurrency", "1", "--output", "json"});
  ASSERT_EQ(ran.code, 0) << ran.out << ran.err;
  const json report = json::parse(ran.out);
  EXPECT_EQ(report["completed"], 2);
  EXPECT_EQ(report["failures"]["status 400"], 1) << report;
  EXPECT_EQ(report["peak_open_requests"], 1);
  EXPECT_EQ(report["latencies_from"], "sent");
}

TEST(LoadBench, NeedsAModelOrAServer) {
  EXPECT_EQ(cli::test::run({"bench"}).code, 2);
  EXPECT_EQ(cli::test::run({"bench", "demo", "--url", "http://127.0.0.1:1"}).code, 2);
  EXPECT_EQ(cli::test::run({"bench", "demo", "--prompt-tokens", "uniform:1-2"}).code, 2);
  const auto nobody = cli::test::run({"bench", "--url", "http://127.0.0.1:1"});
  EXPECT_NE(nobody.code, 0);
  EXPECT_NE(nobody.err.find("127.0.0.1:1"), std::string::npos) << nobody.err;
}

}  // namespace
}  // namespace troupe::gang_test
