// A rank whose computing thread stands still in a step while its process lives: nothing but its
// vitals tells. The promise is 10 s without progress; CI allows three times that.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/gang/held_thread.hpp"
#include "tests/gang/served_gang.hpp"

namespace troupe::gang_test {
namespace {

constexpr auto wedged_after = 10s;
constexpr auto notice_max = 3 * wedged_after;

// What /ready answers from now on, each change once; no answer is no change.
class ready_watch {
 public:
  explicit ready_watch(served_gang& gang)
      : url_(gang.url() + "/ready"), thread_([this](const std::stop_token& stop) {
          while (!stop.stop_requested()) look();
        }) {}

  [[nodiscard]] std::vector<int> answers() {
    const std::lock_guard lock(mutex_);
    return answers_;
  }

 private:
  void look() {
    const auto reply = net::http_fetch({.url = url_, .deadline = 5s});
    if (reply) {
      const std::lock_guard lock(mutex_);
      if (answers_.empty() || answers_.back() != reply->status) answers_.push_back(reply->status);
    }
    static_cast<void>(::poll(nullptr, 0, 2));
  }

  const std::string url_;
  std::mutex mutex_;
  std::vector<int> answers_;
  std::jthread thread_;
};

// A completion that is answered as a whole, on a thread of its own.
std::future<base::result<net::http_reply>> whole_answer(const std::string& url, int max_tokens) {
  json body = completion_body(max_tokens);
  body["stream"] = false;
  return std::async(std::launch::async, [url, text = body.dump()] {
    return net::http_fetch({.method = "POST",
                            .url = url + "/v1/completions",
                            .headers = {{"content-type", "application/json"}},
                            .body = text,
                            .deadline = 120s});
  });
}

std::string name_of(const testing::TestParamInfo<int>& rank) {
  return "rank" + std::to_string(rank.param);
}

class WedgedRank : public testing::TestWithParam<int> {
 protected:
  WedgedRank() : gang_({"--tensor-parallel-size", "2"}) {}

  std::string answer() {
    open_stream stream(gang_.url(), completion_body(60));
    stream.join();
    EXPECT_TRUE(stream.done()) << stream.error() << gang_.log();
    return stream.text();
  }

  // Of rank 0 the connection went with its process; of another one nothing is lost.
  void expect_ended_once(const open_stream& stream) {
    if (GetParam() == 0) {
      EXPECT_FALSE(stream.done());
      EXPECT_TRUE(stream.failed());
      return;
    }
    EXPECT_TRUE(stream.done()) << stream.error();
    EXPECT_EQ(stream.errors(), 0);
  }
  static void expect_whole_answer(const base::result<net::http_reply>& reply,
                                  const std::string& text) {
    if (GetParam() == 0) {
      ASSERT_FALSE(reply);
      EXPECT_EQ(reply.error().code, base::error_code::unavailable) << reply.error().message;
      return;
    }
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200) << reply->body;
    EXPECT_EQ(json::parse(reply->body)["choices"][0]["text"], text);
  }

  // Only the rank that is held is blamed, and it alone is started again.
  void expect_blamed(int rank) {
    const int other = 1 - rank;
    const std::string log = gang_.log();
    const std::string line = fmt::format("rank {} is lost: wedged: no progress for 10 s", rank);
    EXPECT_NE(log.find(line), std::string::npos) << log;
    EXPECT_EQ(log.find(fmt::format("rank {} is lost", other)), std::string::npos) << log;
    const json ranks = gang_.gang()["ranks"];
    EXPECT_EQ(ranks[static_cast<std::size_t>(other)]["restarts"], 0) << ranks;
  }

  served_gang gang_;
};

TEST_P(WedgedRank, IsKilledAndTheGangServesTheSameAnswerInTheNextEpoch) {
  const int rank = GetParam();
  ASSERT_TRUE(gang_.ready_within()) << gang_.log();
  const std::string before = answer();
  const json epoch = gang_.gang()["epoch"];
  const pid_t hit = gang_.process_of(rank);
  const pid_t survivor = gang_.process_of(1 - rank);
  ASSERT_GT(hit, 0);
  open_stream first(gang_.url(), completion_body(3500));
  open_stream second(gang_.url(), completion_body(3500));
  auto whole = whole_answer(gang_.url(), 3500);
  ASSERT_TRUE(wait_until([&] { return first.pieces() >= 5 && second.pieces() >= 5; }));
  ASSERT_TRUE(wait_until([&] { return gang_.metric("vllm:num_requests_running") == 3.0; }));

  ready_watch ready(gang_);
  const held_thread held(hit);
  if (!held.outcome() && held.outcome().error().code == base::error_code::permission_denied) {
    GTEST_SKIP() << held.outcome().error().message;
  }
  ASSERT_TRUE(held.outcome()) << held.outcome().error().message;
  const auto begin = steady::now();
  EXPECT_TRUE(wait_until(
      [&] {
        const pid_t now = gang_.process_of(rank);
        return now != 0 && now != hit;
      },
      notice_max))
      << "the rank was not started again\n"
      << gang_.log();
  EXPECT_GT(steady::now() - begin, wedged_after - 1s) << "something else than the rule told";

  first.join();
  second.join();
  expect_ended_once(first);
  expect_ended_once(second);
  expect_whole_answer(whole.get(), first.text());
  EXPECT_TRUE(wait_until([&] {
    return ready.answers() == std::vector{200, 503, 200};
  })) << testing::PrintToString(ready.answers())
      << gang_.log();
  expect_blamed(rank);
  EXPECT_EQ(gang_.process_of(1 - rank), survivor) << "the survivor did not keep its process";
  const json after = gang_.gang()["epoch"];
  if (rank == 0) {
    EXPECT_NE(after["incarnation"], epoch["incarnation"]);
  } else {
    EXPECT_EQ(after["incarnation"], epoch["incarnation"]);
    EXPECT_EQ(after["number"], epoch["number"].get<int>() + 1);
  }
  EXPECT_EQ(answer(), before);
  if (rank == 0) return;
  // All of what went on has the tokens of one that was never disturbed.
  open_stream undisturbed(gang_.url(), completion_body(3500));
  undisturbed.join();
  EXPECT_EQ(first.text(), undisturbed.text());
  EXPECT_EQ(second.text(), undisturbed.text());
  EXPECT_EQ(gang_.metric("troupe_requests_carried_total"), 3.0);
}

INSTANTIATE_TEST_SUITE_P(EachRank, WedgedRank, testing::Values(0, 1), name_of);

}  // namespace
}  // namespace troupe::gang_test
