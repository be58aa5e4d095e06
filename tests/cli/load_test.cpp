// The load generator's pure parts: what is planned, what is read of an answer, what is reported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/load_plan.hpp"
#include "cli/load_record.hpp"

namespace troupe::cli {
namespace {

using testing::HasSubstr;

TEST(LoadLengths, HaveTheMeansOfTheirDistributions) {
  const auto mean = [](const char* text) {
    const auto lengths = length_distribution::parse(text).value();
    std::mt19937_64 random(1);
    double sum = 0.0;
    for (int i = 0; i < 20000; ++i) sum += static_cast<double>(lengths.draw(random));
    return sum / 20000;
  };
  EXPECT_EQ(mean("512"), 512.0);
  EXPECT_NEAR(mean("uniform:100-900"), 500.0, 8.0);
  EXPECT_NEAR(mean("exponential:300"), 300.0, 8.0);
  EXPECT_NEAR(mean("lognormal:200,0.5"), 200.0 * std::exp(0.125), 4.0);
}

TEST(LoadLengths, UniformHasBothEnds) {
  const auto lengths = length_distribution::parse("uniform:3-5").value();
  std::mt19937_64 random(2);
  std::array<int, 8> seen{};
  for (int i = 0; i < 3000; ++i) ++seen.at(static_cast<std::size_t>(lengths.draw(random)));
  for (const std::size_t length : {3U, 4U, 5U}) EXPECT_NEAR(seen.at(length), 1000, 120);
}

TEST(LoadLengths, WhatIsNoneSaysWhatMayBeWritten) {
  for (const char* const text : {"", "0", "1.5", "-3", "many", "uniform:5-2", "uniform:5",
                                 "lognormal:5", "exponential:0", "poisson:3", "99999999999"}) {
    const auto parsed = length_distribution::parse(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_THAT(parsed.error().message, HasSubstr("uniform:100-900"));
  }
}

TEST(LoadPlan, ArrivesAtTheRate) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    load_options options;
    options.requests = 20000;
    options.request_rate = 50.0;
    options.burstiness = burstiness;
    const auto plan = plan_load(options);
    EXPECT_NEAR(plan.back().arrival_s, 400.0, 20.0) << burstiness;
    double squares = 0.0;
    for (std::size_t i = 1; i < plan.size(); ++i) {
      squares += std::pow(plan[i].arrival_s - plan[i - 1].arrival_s - 0.02, 2);
    }
    // The gaps' variance is that of a gamma distribution: the mean squared over the shape.
    EXPECT_NEAR(squares / 20000.0 / (0.0004 / burstiness), 1.0, 0.15) << burstiness;
  }
  load_options at_once;
  at_once.requests = 3;
  EXPECT_EQ(plan_load(at_once).back().arrival_s, 0.0) << "an infinite rate";
}

TEST(LoadTrace, TakesBothSpellings) {
  const auto plan = read_trace(
      "{\"arrival_s\":2.5,\"prompt_tokens\":10,\"max_tokens\":5}\n\n"
      "{\"timestamp\":2000,\"input_length\":7,\"output_length\":3,\"hash_ids\":[1]}\n",
      10);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  ASSERT_EQ(plan->size(), 2U);
  EXPECT_EQ((*plan)[0].prompt_tokens, 7);
  EXPECT_EQ((*plan)[0].arrival_s, 0.0) << "the first one begins the run";
  EXPECT_EQ((*plan)[1].arrival_s, 0.5);
}

TEST(LoadTrace, NamesTheLine) {
  const auto message = [](const char* text) {
    const auto read = read_trace(text, 10);
    return read ? std::string("taken") : read.error().message;
  };
  EXPECT_EQ(message("{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n{"),
            "--trace: line 2: not a JSON object");
  EXPECT_EQ(message("{\"timestamp\":1,\"input_length\":1}"),
            "--trace: line 1: prompt_tokens or max_tokens is missing");
  EXPECT_EQ(message("{\"input_length\":1,\"output_length\":1}"),
            "--trace: line 1: arrival_s or timestamp is missing");
  EXPECT_EQ(message("{\"timestamp\":1,\"input_length\":0,\"output_length\":1}"),
            "--trace: line 1: tokens are 1 to 16777216");
  EXPECT_EQ(message(" \n"), "--trace: no request is in it");
}

const std::string stream =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],"
    "\"usage\":null}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
    ": a comment\n\n"
    "data: {\"choices\":[{\"text\": \"b\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n"
    "data: [DONE]\n\n";

TEST(LoadEvents, AreReadAlikeWhateverTheCut) {
  for (std::size_t at = 0; at <= stream.size(); ++at) {
    answer_events events;
    const int texts = events.push(stream.substr(0, at)) + events.push(stream.substr(at));
    ASSERT_EQ(texts, 2) << at;
    ASSERT_TRUE(events.done()) << at;
    ASSERT_EQ(events.prompt_tokens(), 7) << at;
    ASSERT_EQ(events.completion_tokens(), 2) << at;
    ASSERT_EQ(events.error(), "") << at;
  }
}

TEST(LoadEvents, KeepAnErrorAndNoMoreThanAMegabyte) {
  answer_events failing;
  static_cast<void>(failing.push("data: {\"error\":{\"code\":\"aborted\"}}\n\n"));
  EXPECT_EQ(failing.error(), "{\"code\":\"aborted\"}");
  answer_events endless;
  static_cast<void>(endless.push(std::string((1U << 20) + 1, 'x')));
  EXPECT_THAT(endless.error(), HasSubstr("more than 1048576 bytes"));
}

TEST(LoadReport, PercentilesAreByNearestRank) {
  std::vector<double> values;
  for (int i = 1; i <= 100; ++i) values.push_back(i);
  EXPECT_EQ(percentile(values, 0.5), 50.0);
  EXPECT_EQ(percentile(values, 0.99), 99.0);
  EXPECT_EQ(percentile(values, 1.0), 100.0);
  EXPECT_EQ(percentile(values, 0.0), 1.0);
  EXPECT_EQ(percentile({7.0}, 0.99), 7.0);
}

std::vector<request_record> three_requests() {
  request_record quick{.due_s = 0.0, .sent_s = 0.1, .first_s = 0.2, .last_s = 0.4};
  quick.gaps_s = {0.1F, 0.1F};
  quick.end_s = 0.4;
  quick.prompt_tokens = 10;
  quick.completion_tokens = 3;
  request_record slow = quick;
  slow.first_s = 1.2;
  slow.last_s = 2.0;
  slow.gaps_s = {0.4F, 0.4F};
  slow.end_s = 2.0;
  request_record refused{.due_s = 0.3, .sent_s = 0.3, .end_s = 0.5, .failure = "status 503"};
  return {quick, slow, refused};
}

TEST(LoadReport, CountsFromWhenRequestsWereDueWhereArrivalsAreGiven) {
  const auto open = load_report(three_requests(), {}, true);
  EXPECT_EQ(open["completed"], 2);
  EXPECT_EQ(open["failures"]["status 503"], 1);
  EXPECT_EQ(open["peak_open_requests"], 3);
  EXPECT_EQ(open["completion_tokens"], 6);
  EXPECT_EQ(open["completion_tokens_per_s"], 3.0);
  EXPECT_NEAR(open["ttft_ms"]["median"].get<double>(), 200.0, 1e-6);
  EXPECT_NEAR(open["itl_ms"]["max"].get<double>(), 400.0, 1e-4);
  EXPECT_NEAR(open["sent_late_ms"]["max"].get<double>(), 100.0, 1e-6);
  const auto closed = load_report(three_requests(), {}, false);
  EXPECT_NEAR(closed["ttft_ms"]["median"].get<double>(), 100.0, 1e-6);
}

TEST(LoadReport, GoodputCountsThoseWithinEveryLimit) {
  const auto limits = parse_goodput("ttft:500, itl:200").value();
  EXPECT_EQ(load_report(three_requests(), limits, true)["goodput_requests_per_s"], 0.5);
  EXPECT_FALSE(load_report(three_requests(), {}, true).contains("goodput_requests_per_s"));
  for (const char* const text : {"ttft", "ttft:x", "ttft:-1", "speed:3"}) {
    EXPECT_FALSE(parse_goodput(text).has_value()) << text;
  }
}

TEST(LoadReport, ThePictureStandsAlone) {
  const std::string plot = plot_of(three_requests(), true);
  EXPECT_TRUE(plot.starts_with("<svg ")) << plot;
  EXPECT_TRUE(plot.ends_with("</svg>\n"));
  EXPECT_THAT(plot, HasSubstr("p99"));
  EXPECT_EQ(plot.find("href"), std::string::npos);
  EXPECT_THAT(plot_of({}, true), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace troupe::cli
