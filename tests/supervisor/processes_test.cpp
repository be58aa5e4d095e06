// The supervisor on real processes: losses, restarts, ends, and what stays behind (nothing).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "supervisor/health.hpp"
#include "tests/supervisor/supervised.hpp"

namespace troupe::supervisor::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

double ms_between(std::uint64_t from_ns, std::uint64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) * 1e-6;
}

void expect_within_a_second(std::uint64_t from_ns, std::uint64_t to_ns) {
  const double took = ms_between(from_ns, to_ns);
  ::testing::Test::RecordProperty("noticed_ms", fmt::format("{:.1f}", took));
  std::printf("             noticed after %.1f ms\n", took);
  EXPECT_LT(took, static_cast<double>(second_in_ci.count()));
}

class LossOf : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(LossOf, ARankIsNoticedByAllOthersAndItComesBack) {
  const auto [rank, signal] = GetParam();
  const supervised gang({"world=3"});
  for (int one = 0; one < 3; ++one) ASSERT_GT(gang.wait_for_start(one), 0);
  const pid_t victim = gang.wait_for_start(rank);
  const std::uint64_t killed = base::steady_ns();
  ASSERT_TRUE(send_to(victim, signal));
  for (int other = 0; other < 3; ++other) {
    if (other == rank) continue;
    const auto told = gang.wait_for(fmt::format("lost {} 1 ", rank), other);
    ASSERT_TRUE(told) << gang.log();
    expect_within_a_second(killed, told->at_ns);
    EXPECT_THAT(told->what, HasSubstr(fmt::format("signal {} ", signal)));
  }
  EXPECT_GT(gang.wait_for_start(rank, 2), 0);
  EXPECT_TRUE(wait_until([&] { return is_gone(victim); }));
}
INSTANTIATE_TEST_SUITE_P(Supervisor, LossOf,
                         ::testing::Values(std::pair(0, SIGKILL), std::pair(1, SIGKILL),
                                           std::pair(2, SIGKILL), std::pair(0, SIGSTOP),
                                           std::pair(1, SIGSTOP), std::pair(2, SIGTSTP),
                                           std::pair(1, SIGQUIT)));

TEST(Supervisor, NoticesARankThatIsWedgedOnItsCore) {
  const supervised gang({"world=2", "rank1=wedge"});
  const auto wedged = gang.wait_for("wedged", 1);
  ASSERT_TRUE(wedged);
  const auto told = gang.wait_for("lost 1 1 wedged: ", 0);
  ASSERT_TRUE(told) << gang.log();
  // One second of the thread's CPU is allowed, which takes longer on a busy machine.
  std::printf("             noticed after %.1f ms\n", ms_between(wedged->at_ns, told->at_ns));
  EXPECT_GT(ms_between(wedged->at_ns, told->at_ns), 990.0);
  EXPECT_GT(gang.wait_for_start(1, 2), 0);
}

TEST(Supervisor, RaisesNoFalseAlarmWithEightBusyRanks) {
  supervised gang({"world=8", "ranks=busy"});
  for (int rank = 0; rank < 8; ++rank) ASSERT_TRUE(gang.wait_for("busy", rank)) << gang.log();
  const std::uint64_t end = base::steady_ns() + 8'000'000'000;
  ASSERT_TRUE(wait_until([&] { return base::steady_ns() > end; }));
  EXPECT_TRUE(gang.records("lost").empty()) << gang.log();
  EXPECT_EQ(gang.records("started").size(), 8U);
  // And a real loss is noticed among them.
  const std::uint64_t killed = base::steady_ns();
  ASSERT_TRUE(send_to(gang.wait_for_start(5), SIGSTOP));
  const auto told = gang.wait_for("lost 5 1 ", 2);
  ASSERT_TRUE(told);
  expect_within_a_second(killed, told->at_ns);
}

TEST(Supervisor, BacksOffAndEndsAtTheBound) {
  supervised gang({"world=2", "restarts=3", "rank1=exit=1"});
  EXPECT_EQ(gang.exit_code(), 4);
  const auto starts = gang.records("started", 1);
  ASSERT_EQ(starts.size(), 4U);
  EXPECT_GE(ms_between(starts[1].at_ns, starts[2].at_ns), 240.0);
  EXPECT_GE(ms_between(starts[2].at_ns, starts[3].at_ns), 490.0);
  EXPECT_THAT(gang.log(), HasSubstr("END rank 1 is lost: exited with code 1; it was started again "
                                    "3 times within 10 minutes"));
}

TEST(Supervisor, EndsWithTheCodeOfARankThatNoRestartWouldHelp) {
  for (const int code : {2, 3, 4}) {
    supervised gang({"world=2", fmt::format("rank1=exit={}", code)});
    EXPECT_EQ(gang.exit_code(), code);
    EXPECT_EQ(gang.records("started", 1).size(), 1U);
  }
}

TEST(Supervisor, EndsWithTheReasonOfARankThatGivesUp) {
  supervised gang({"world=2", "rank1=give_up=3"});
  EXPECT_EQ(gang.exit_code(), 3);
  EXPECT_THAT(gang.log(), HasSubstr("END rank 1: this model is refused"));
}

TEST(Supervisor, HearsTheLastWordsOfARankThatEndsAtOnce) {
  supervised gang({"world=1", "one_shot", "rank0=announce,exit_at_ping=0"});
  EXPECT_EQ(gang.exit_code(), 0);
  EXPECT_EQ(gang.out(), "{\"event\":\"ready\"}\n");
}

TEST(Supervisor, EndsACommandWithItsRankZero) {
  for (const int code : {0, 1, 3}) {
    supervised gang({"world=3", "one_shot", fmt::format("rank0=starts=3,exit_at_ping={}", code)});
    const std::vector<pid_t> ranks = {gang.wait_for_start(1), gang.wait_for_start(2)};
    EXPECT_EQ(gang.exit_code(), code);
    for (const pid_t rank : ranks) EXPECT_TRUE(is_gone(rank));
  }
}

TEST(Supervisor, EndsACommandThatLosesARankWithFour) {
  supervised gang({"world=2", "one_shot"});
  ASSERT_GT(gang.wait_for_start(0), 0);
  ASSERT_TRUE(send_to(gang.wait_for_start(1), SIGKILL));
  EXPECT_EQ(gang.exit_code(), 4);
  EXPECT_THAT(gang.log(), HasSubstr("END rank 1 is lost: killed by signal 9 (SIGKILL)"));
}

TEST(Supervisor, LeavesNothingBehindWhenItIsKilled) {
  supervised gang({"world=4", "ranks=busy,ignore_sigterm"});
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.push_back(gang.wait_for_start(rank));
    ASSERT_TRUE(gang.wait_for("busy", rank));
  }
  // One that is stopped, and not yet noticed since its supervisor is stopped too.
  gang.send(SIGSTOP);
  ASSERT_TRUE(send_to(ranks[2], SIGSTOP));
  const std::uint64_t killed = base::steady_ns();
  gang.send(SIGKILL);
  EXPECT_EQ(gang.exit_code(), -SIGKILL);
  // This process may be their reaper or not: a zombie is dead too.
  const auto dead = [](pid_t process) {
    const std::string status = read_file(fmt::format("/proc/{}/stat", process));
    const std::size_t name = status.rfind(')');
    return name == std::string::npos || status.substr(name, 3) == ") Z";
  };
  for (const pid_t rank : ranks) {
    EXPECT_TRUE(wait_until([&] { return dead(rank); }, second_in_ci)) << rank;
  }
  std::printf("             all gone after %.1f ms\n", ms_between(killed, base::steady_ns()));
}

TEST(Supervisor, ReapsTheOrphansItInherits) {
  const supervised gang({"world=1", "subreaper", "rank0=orphans"});
  ASSERT_TRUE(gang.wait_for("orphaned", 0));
  const std::string children =
      fmt::format("/proc/{}/task/{}/children", gang.process(), gang.process());
  const std::string only = fmt::format("{} ", gang.wait_for_start(0));
  EXPECT_TRUE(wait_until([&] { return read_file(children) == only; })) << read_file(children);
}

TEST(Supervisor, DoesTheDutiesOfProcessOne) {
  const char* program = "/usr/bin/unshare";
  if (::geteuid() != 0 || !std::filesystem::exists(program)) {
    GTEST_SKIP() << "no namespace of processes: not root, or no unshare program";
  }
  supervised gang({"world=2", "rank1=orphans"},
                  {program, "--pid", "--fork", "--kill-child", "--mount-proc"});
  ASSERT_TRUE(gang.wait_for("orphaned", 1)) << gang.log();
  const auto children = [](pid_t process) {
    std::istringstream list(read_file(fmt::format("/proc/{}/task/{}/children", process, process)));
    std::vector<pid_t> all;
    for (pid_t child = 0; list >> child;) all.push_back(child);
    return all;
  };
  ASSERT_EQ(children(gang.process()).size(), 1U);
  const pid_t first = children(gang.process()).front();
  EXPECT_TRUE(wait_until([&] { return children(first).size() == 2; }));
  ASSERT_TRUE(send_to(first, SIGTERM));
  EXPECT_EQ(gang.exit_code(), 0);
  EXPECT_EQ(gang.records("drain 2000", 1).size(), 1U);
}

TEST(Supervisor, DrainsRankZeroThenTheOthersOnSigterm) {
  supervised gang({"world=3", "http", "drain_ms=45678", "leave_ms=1234"});
  for (int rank = 0; rank < 3; ++rank) ASSERT_GT(gang.wait_for_start(rank), 0);
  gang.send(SIGTERM);
  EXPECT_EQ(gang.exit_code(), 0);
  const auto first = gang.records("drain 45678", 0);
  ASSERT_EQ(first.size(), 1U);
  for (const int rank : {1, 2}) {
    const auto later = gang.records("drain 1234", rank);
    ASSERT_EQ(later.size(), 1U);
    EXPECT_GT(later[0].at_ns, first[0].at_ns);
  }
}

TEST(Supervisor, KillsWhoDoesNotDrain) {
  supervised gang({"world=2", "drain_ms=300", "leave_ms=300", "ranks=ignore_drain,ignore_sigterm"});
  for (int rank = 0; rank < 2; ++rank) ASSERT_GT(gang.wait_for_start(rank), 0);
  gang.send(SIGTERM);
  EXPECT_EQ(gang.exit_code(), 1);
  EXPECT_THAT(gang.log(), HasSubstr("END open requests did not end within 0.3 s"));
}

TEST(Supervisor, EndsAtOnceAtTheSecondSignal) {
  supervised gang({"world=2", "ranks=ignore_drain"});
  for (int rank = 0; rank < 2; ++rank) ASSERT_GT(gang.wait_for_start(rank), 0);
  gang.send(SIGINT);
  ASSERT_TRUE(gang.wait_for("drain", 0));
  gang.send(SIGTERM);
  EXPECT_EQ(gang.exit_code(), 1);
  EXPECT_THAT(gang.log(), HasSubstr("END ended at once by a second signal, SIGTERM"));
}

TEST(Supervisor, HandsOneSegmentToEveryRank) {
  const supervised gang({"world=2", "rank0=want_segment=2"});
  for (int rank = 0; rank < 2; ++rank) {
    const auto got = gang.wait_for("segment 1 1 ", rank);
    ASSERT_TRUE(got) << gang.log();
    EXPECT_THAT(got->what, Not(HasSubstr("-1")));
  }
}

TEST(Supervisor, BeginsAnewWhenThereIsNoMemoryForASegment) {
  supervised gang({"world=1", "no_segment", "restarts=1", "rank0=want_segment=1"});
  EXPECT_EQ(gang.exit_code(), 4);
  EXPECT_THAT(gang.log(), HasSubstr("no shared memory for the gang: no memory left"));
}

TEST(Supervisor, TellsRanksWhereTheControlPlaneIs) {
  const supervised gang({"world=2", "rank0=listens"});
  ASSERT_TRUE(gang.wait_for("control_plane 127.0.0.1:8472", 1));
  ASSERT_TRUE(send_to(gang.wait_for_start(0), SIGKILL));
  EXPECT_TRUE(gang.wait_for("control_plane :0", 1));
  EXPECT_TRUE(gang.wait_for("control_plane 127.0.0.1:8472", 1, 2));
}

TEST(Supervisor, HandsDownTheGangsCredentials) {
  const supervised gang({"world=2", "credentials", "ranks=credentials"});
  for (int rank = 0; rank < 2; ++rank) EXPECT_TRUE(gang.wait_for("credentials good", rank));
}

TEST(Supervisor, IgnoresWhatMakesNoSense) {
  supervised gang({"world=2", "rank1=say_garbage,say_wrong,announce"});
  EXPECT_TRUE(wait_until([&] { return gang.out() == "{\"event\":\"ready\"}\n"; })) << gang.log();
  EXPECT_TRUE(wait_until([&] { return gang.logged("rank 1 sent "); }));
  EXPECT_TRUE(gang.records("lost").empty());
  gang.send(SIGTERM);
  EXPECT_EQ(gang.exit_code(), 0);
}

TEST(Supervisor, DoesNotWaitForARankThatDoesNotRead) {
  const supervised gang({"world=2", "rank1=mute"});
  ASSERT_TRUE(wait_until([&] { return gang.logged("rank 1 has not answered"); }));
  ASSERT_TRUE(send_to(gang.wait_for_start(0), SIGKILL));
  EXPECT_GT(gang.wait_for_start(0, 2), 0);
  EXPECT_TRUE(gang.records("lost 1").empty());
}

TEST(Supervisor, KeepsTheTerminalsKeysAndStdoutToItself) {
  const supervised gang({"world=2"});
  const auto started = gang.wait_for("started", 1);
  ASSERT_TRUE(started);
  EXPECT_EQ(started->what, fmt::format("started no-tty {}", started->process));
}

// --- the stand-in --------------------------------------------------------------------------------

TEST(Supervisor, AnswersHttpWhileRankZeroIsAway) {
  const supervised gang({"world=1", "http", "restarts=20", "rank0=http,crash=6"});
  const std::uint16_t port = gang.port();
  ASSERT_NE(port, 0);
  ASSERT_GT(gang.wait_for_start(0, 6), 0);  // 4 s of back-off begin
  EXPECT_THAT(get(port, "/health"), StartsWith("HTTP/1.1 200 OK\r\n"));
  const std::string ready = get(port, "/ready?x=1");
  EXPECT_THAT(ready, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_THAT(ready, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_THAT(ready, HasSubstr(R"({"error":{"message":"rank 0 is being started again after it was )"
                               R"(lost: killed by signal 9 (SIGKILL); try again","type":)"));
  // A body of which nobody knows the length must not reset the answer away.
  EXPECT_THAT(ask_http(port,
                       "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 200000"
                       "\r\n\r\n" +
                           std::string(200'000, 'x')),
              StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(ask_http(port, "nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask_http(port, std::string(20'000, 'x')), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ask_http(port, "HEAD /v1/models HTTP/1.1\r\n\r\n"), Not(HasSubstr("error")));
  ASSERT_GT(gang.wait_for_start(0, 7), 0);
  for (int count = 0; count < 20; ++count) {
    EXPECT_THAT(get(port, "/ready"), HasSubstr("rank 0")) << count;
  }
}

TEST(Supervisor, EndsConnectionsThatSayNothing) {
  const supervised gang({"world=1", "http", "restarts=20", "rank0=crash=9"});
  const std::uint16_t port = gang.port();
  ASSERT_GT(gang.wait_for_start(0, 6), 0);
  std::vector<base::fd> silent;
  for (int count = 0; count < 100; ++count) {
    auto socket = base::connect_to("127.0.0.1", port, second_in_ci);
    ASSERT_TRUE(socket);
    silent.push_back(std::move(*socket));
  }
  EXPECT_THAT(get(port, "/health"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

// --- health --------------------------------------------------------------------------------------

TEST(Supervisor, TellsItsHealth) {
  const temporary_folder state;
  const supervised gang({"world=2", "state_dir=" + (state / "deep/er"), "ranks=serving=3"});
  const auto joined = [&] {
    const auto status = ask_health({.state_dir = state / "deep/er"});
    return status && status->joined && status->epoch == base::epoch_id{7, 3};
  };
  EXPECT_TRUE(wait_until(joined));
  const auto status = ask_health({.state_dir = state / "deep/er"});
  ASSERT_TRUE(status);
  ASSERT_EQ(status->ranks.size(), 2U);
  EXPECT_EQ(status->ranks[1].detail, "all is well");
  const auto mode = std::filesystem::status(state / "deep/er/run").permissions();
  EXPECT_EQ(mode, std::filesystem::perms::owner_all);
  // A loss of which the gang has not yet recovered: the reports are of the old epoch.
  ASSERT_TRUE(send_to(gang.wait_for_start(1), SIGKILL));
  ASSERT_TRUE(gang.wait_for("lost 1 1", 0));
  const auto after = ask_health({.state_dir = state / "deep/er"});
  ASSERT_TRUE(after);
  EXPECT_FALSE(after->joined);
  EXPECT_THAT(after->why, HasSubstr("rank 1 is lost"));
}

TEST(Supervisor, IsNamedWhenSeveralRun) {
  const temporary_folder state;
  const std::string where = "state_dir=" + (state / "s");
  EXPECT_EQ(ask_health({.state_dir = state / "s"}).error().code, base::error_code::not_found);
  const supervised first({"world=1", where, "name=one"});
  ASSERT_GT(first.wait_for_start(0), 0);
  {
    const supervised second({"world=1", where, "name=two"});
    const supervised again({"world=1", where, "name=one"});
    ASSERT_GT(second.wait_for_start(0), 0);
    ASSERT_GT(again.wait_for_start(0), 0);
    const auto both = ask_health({.state_dir = state / "s"});
    ASSERT_FALSE(both);
    EXPECT_EQ(both.error().code, base::error_code::failed_precondition);
    EXPECT_THAT(both.error().message, HasSubstr("3 supervisors run"));
    EXPECT_THAT(both.error().message, HasSubstr(fmt::format("one, one-{}, two", again.process())));
    EXPECT_TRUE(ask_health({.state_dir = state / "s", .name = "two"}));
    EXPECT_EQ(ask_health({.state_dir = state / "s", .name = "three"}).error().code,
              base::error_code::not_found);
  }
  // Both were killed: their sockets are there and nobody listens.
  EXPECT_TRUE(ask_health({.state_dir = state / "s"}));
  EXPECT_TRUE(std::filesystem::exists(state / "s/run/two.socket"));
  const supervised third({"world=1", where, "name=three"});
  ASSERT_GT(third.wait_for_start(0), 0);
  EXPECT_FALSE(std::filesystem::exists(state / "s/run/two.socket"));
}

TEST(Supervisor, IsSaidToHangWhenItIsStopped) {
  const temporary_folder state;
  const supervised gang({"world=1", "state_dir=" + (state / "s")});
  ASSERT_GT(gang.wait_for_start(0), 0);
  gang.send(SIGSTOP);
  const auto status = ask_health({.state_dir = state / "s", .patience = milliseconds(50)});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, base::error_code::deadline_exceeded);
}

}  // namespace
}  // namespace troupe::supervisor::test
