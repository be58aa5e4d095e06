// Child processes: what they inherit, what is told of them, and that they end with their parent.
#include "base/process.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/signals.hpp"

namespace troupe::base {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int patience_ms = 20'000;

struct pipe_ends {
  pipe_ends() {
    std::array<int, 2> both{};
    if (::pipe2(both.data(), O_CLOEXEC) == 0) {
      out = fd(both[0]);
      in = fd(both[1]);
    }
  }
  fd out;
  fd in;
};

// All that comes until every writer is gone.
std::string read_all(const fd& pipe) {
  std::string text;
  std::array<char, 4096> piece{};
  for (;;) {
    pollfd ready{pipe.get(), POLLIN, 0};
    if (::poll(&ready, 1, patience_ms) <= 0) return text + " (no end)";
    const ssize_t length = ::read(pipe.get(), piece.data(), piece.size());
    if (length <= 0) return text;
    text.append(piece.data(), static_cast<std::size_t>(length));
  }
}

spawn_options shell(const std::string& script) {
  return {.program = "/bin/sh", .arguments = {"sh", "-c", script}};
}

// What the script writes to its stdout.
std::string output_of(spawn_options options) {
  pipe_ends pipe;
  options.descriptors.push_back({pipe.in.get(), 1});
  const auto child = spawn(options);
  if (!child) return child.error().message;
  pipe.in.reset();
  std::string text = read_all(pipe.out);
  ::waitpid(child->id, nullptr, 0);
  return text;
}

// The next change of a child, while waiting on its handle or on a signal of it.
std::optional<child_change> next_change(const child_process& child) {
  const steady_time end = steady_now() + std::chrono::milliseconds(patience_ms);
  while (steady_now() < end) {
    const auto change = change_of(child);
    if (!change || *change) return change ? *change : std::nullopt;
    pollfd ready{child.handle.get(), POLLIN, 0};
    ::poll(&ready, 1, 5);
  }
  return std::nullopt;
}

TEST(Process, InheritsTheNamedDescriptorsUnderTheirNumbersAndNoOther) {
  const fd first(::open("/dev/null", O_RDONLY));  // not close-on-exec
  const fd second(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(first && second);
  spawn_options options = shell(
      "for n in 0 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do "
      "readlink /proc/self/fd/$n >&5 || true; done");
  pipe_ends pipe;
  options.null_input = true;
  // The numbers change places: what one is copied to is where another comes from.
  options.descriptors = {{first.get(), second.get()}, {second.get(), first.get()}};
  options.descriptors.push_back({pipe.in.get(), 5});
  if (first.get() == 5 || second.get() == 5) GTEST_SKIP() << "the test's own number is taken";
  const auto child = spawn(options);
  ASSERT_TRUE(child) << child.error().message;
  pipe.in.reset();
  const std::string text = read_all(pipe.out);
  EXPECT_EQ(next_change(*child)->number, 0);
  EXPECT_THAT(text, HasSubstr("/dev/zero"));
  std::vector<std::string> targets;
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    targets.push_back(text.substr(at, text.find('\n', at) - at));
  }
  // stdin, the two that changed places, and the pipe, whichever numbers they had.
  EXPECT_EQ(std::count(targets.begin(), targets.end(), "/dev/zero"), 1) << text;
  EXPECT_EQ(std::count(targets.begin(), targets.end(), "/dev/null"), 2) << text;
  EXPECT_EQ(targets.size(), 4U) << text;
}

TEST(Process, PutsADescriptorInPlaceOfStdoutAndStderr) {
  EXPECT_EQ(output_of(shell("echo words")), "words\n");
}

TEST(Process, ReplacesVariablesAndKeepsTheRest) {
  ::setenv("TROUPE_TEST_KEPT", "kept", 1);
  ::setenv("TROUPE_TEST_REPLACED", "old", 1);
  spawn_options options = shell("echo $TROUPE_TEST_KEPT $TROUPE_TEST_REPLACED $TROUPE_TEST_NEW");
  options.environment = {"TROUPE_TEST_REPLACED=new", "TROUPE_TEST_NEW=a=b"};
  EXPECT_EQ(output_of(options), "kept new a=b\n");
}

TEST(Process, StartsWithAnEmptyMaskAndDefaultActions) {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto action = std::signal(SIGUSR1, SIG_IGN);
  const std::string text = output_of(shell("grep -E 'SigBlk|SigIgn' /proc/self/status"));
  std::signal(SIGUSR1, action);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(text, HasSubstr("SigBlk:\t0000000000000000"));
  const std::size_t ignored = text.find("SigIgn:\t");
  ASSERT_NE(ignored, std::string::npos);
  const auto mask = std::stoull(text.substr(ignored + 8), nullptr, 16);
  EXPECT_EQ(mask & (1ULL << (SIGUSR1 - 1)), 0U);
}

TEST(Process, HasAGroupOfItsOwnWhenAsked) {
  spawn_options options = shell("read -r line; exit 0");
  const auto inside = spawn(options);
  options.own_process_group = true;
  const auto outside = spawn(options);
  ASSERT_TRUE(inside && outside);
  EXPECT_EQ(::getpgid(inside->id), ::getpgrp());
  EXPECT_EQ(::getpgid(outside->id), outside->id);
  for (const auto* one : {&*inside, &*outside}) {
    send_signal(*one, SIGKILL);
    EXPECT_TRUE(next_change(*one));
  }
}

TEST(Process, TellsOfExitKillAndStop) {
  const auto exits = spawn(shell("exit 7"));
  ASSERT_TRUE(exits);
  EXPECT_EQ(to_string(*next_change(*exits)), "exited with code 7");
  EXPECT_EQ(change_of(*exits).error().code, error_code::not_found);  // reaped
  const auto stops = spawn(shell("kill -STOP $$; exit 0"));
  ASSERT_TRUE(stops);
  EXPECT_EQ(to_string(*next_change(*stops)), "stopped by signal 19 (SIGSTOP)");
  EXPECT_FALSE(*change_of(*stops));  // told once
  send_signal(*stops, SIGKILL);
  EXPECT_EQ(to_string(*next_change(*stops)), "killed by signal 9 (SIGKILL)");
  send_signal(*stops, SIGKILL);  // no harm
}

TEST(Process, SaysWhatCannotBeStarted) {
  const auto none = spawn({.program = "/no/such/program", .arguments = {"x"}});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, error_code::not_found);
  EXPECT_THAT(none.error().message, HasSubstr("/no/such/program"));
  const auto denied = spawn({.program = "/dev/null", .arguments = {"x"}});
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code, error_code::permission_denied);
}

TEST(Process, ReapsOrphansButNoKnownChild) {
  ASSERT_TRUE(adopt_orphans());
  const auto known = spawn(shell("exit 3"));
  ASSERT_TRUE(known);
  // The inner shell outlives its parent and becomes a child of this process.
  const auto parent = spawn(shell("(exit 0) & (exit 0) & exit 0"));
  ASSERT_TRUE(parent);
  pollfd ready{known->handle.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, patience_ms), 1);
  ASSERT_TRUE(next_change(*parent));
  const steady_time end = steady_now() + std::chrono::milliseconds(200);
  while (steady_now() < end) reap_orphans({known->id});
  const auto change = change_of(*known);
  ASSERT_TRUE(change && *change);
  EXPECT_EQ((*change)->number, 3);
}

TEST(Process, KnowsTheCpuOfAThread) {
  const auto thread = static_cast<pid_t>(::syscall(SYS_gettid));
  const auto before = thread_cpu_ns(::getpid(), thread);
  ASSERT_TRUE(before) << before.error().message;
  const steady_time end = steady_now() + std::chrono::milliseconds(patience_ms);
  std::uint64_t used = *before;
  while (used < *before + 30'000'000 && steady_now() < end) {
    used = thread_cpu_ns(::getpid(), thread).value_or(0);
  }
  EXPECT_GE(used, *before + 30'000'000);
  EXPECT_FALSE(thread_cpu_ns(::getpid(), 1 << 30));
}

// A child that ends with its parent, and says so where the parent is gone already.
TEST(Process, EndsWithItsParent) {
  pipe_ends pipe;
  const pid_t parent = ::fork();
  if (parent == 0) {
    const pid_t expected = ::getpid();
    if (::fork() == 0) {
      const bool bound = die_with_parent(expected).has_value();
      static_cast<void>(!::write(pipe.in.get(), bound ? "+" : "-", 1));
      for (;;) ::pause();
    }
    for (;;) ::pause();
  }
  ASSERT_GT(parent, 0);
  pipe.in.reset();
  char said = 0;
  ASSERT_EQ(::read(pipe.out.get(), &said, 1), 1);
  EXPECT_EQ(said, '+');
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_EQ(read_all(pipe.out), "");  // the child held the last writing end
}

TEST(Process, RefusesToLiveWithoutTheParentItExpects) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto bound = die_with_parent(::getppid() + 1);
    ::_exit(!bound && bound.error().code == error_code::unavailable ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Signals, AreReadAndAreBlockedOnlyMeanwhile) {
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  ASSERT_FALSE(sigismember(&before, SIGUSR2));
  {
    auto signals = signal_source::take({SIGUSR2, SIGCHLD});
    ASSERT_TRUE(signals);
    EXPECT_FALSE(signals->next());
    ::kill(::getpid(), SIGUSR2);
    pollfd ready{signals->descriptor(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, patience_ms), 1);
    EXPECT_EQ(signals->next(), SIGUSR2);
    EXPECT_FALSE(signals->next());
  }
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_FALSE(sigismember(&after, SIGUSR2));
}

TEST(Signals, LeaveIgnoredOnesIgnored) {
  const auto action = std::signal(SIGUSR2, SIG_IGN);
  {
    auto signals = signal_source::take({SIGUSR2, SIGCHLD});
    ASSERT_TRUE(signals);
    ::kill(::getpid(), SIGUSR2);
    EXPECT_FALSE(signals->next());
  }
  std::signal(SIGUSR2, action);
}

}  // namespace
}  // namespace troupe::base
