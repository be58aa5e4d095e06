// Runs the ranks of a gang as processes over one shared segment, as in production.
#pragma once

#include "tests/transport/group_runner.hpp"
#include "transport/shared_memory.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace troupe::transport::testing {

using std::chrono::steady_clock;

// The state of a process as the kernel tells it: R, S, T, Z ... or 0.
inline char state_of(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string stat;
  std::getline(file, stat);
  const auto name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.size() > name_end + 2 ? stat[name_end + 2] : '\0';
}

// What a rank tells the test while it runs, in memory that both map.
struct rank_report {
  std::atomic<bool> connected{false};
  std::atomic<std::uint64_t> calls{0};    // operations done
  std::atomic<std::int64_t> ended_ns{0};  // steady_clock, when an operation failed
  std::atomic<int> code{0};               // of that error
};

class gang_of_processes {
 public:
  using body = std::function<void(rank_groups&, rank_report&)>;

  // Forks one process a rank, which maps the segment, connects and runs the body; a failed
  // expectation in it makes it exit with 1. Made while this process has one thread.
  gang_of_processes(world_shape shape, const body& run)
      : size_(shape.tp_size * shape.pp_size),
        segment_(std::move(*make_shared_segment(epoch, size_))),
        watch_(std::move(*shared_segment_watch::open(segment_.get()))),
        reports_(static_cast<rank_report*>(::mmap(nullptr, sizeof(rank_report) * 64,
                                                  PROT_READ | PROT_WRITE,
                                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    std::fflush(nullptr);
    for (int rank = 0; rank < size_; ++rank) {
      const pid_t process = ::fork();
      if (process == 0) be_rank(rank, shape, run);
      processes_.push_back(process);
    }
  }
  gang_of_processes(const gang_of_processes&) = delete;
  gang_of_processes& operator=(const gang_of_processes&) = delete;
  ~gang_of_processes() {
    for (const pid_t process : processes_) {
      if (process <= 0) continue;
      ::kill(process, SIGKILL);
      ::waitpid(process, nullptr, 0);
    }
    ::munmap(reports_, sizeof(rank_report) * 64);
  }

  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] int segment() const { return segment_.get(); }
  [[nodiscard]] shared_segment_watch& watch() { return watch_; }
  [[nodiscard]] rank_report& report(int rank) { return reports_[rank]; }
  [[nodiscard]] pid_t process(int rank) const { return processes_[static_cast<std::size_t>(rank)]; }
  void signal(int rank, int number) { ASSERT_EQ(::kill(process(rank), number), 0); }

  // Waits for the process's end; its wait status, or -1 past the deadline.
  int wait(int rank, std::chrono::seconds patience = std::chrono::seconds(200)) {
    const auto deadline = steady_clock::now() + patience;
    int status = 0;
    while (::waitpid(process(rank), &status, WNOHANG) == 0) {
      if (steady_clock::now() > deadline) return -1;
      std::this_thread::yield();
    }
    processes_[static_cast<std::size_t>(rank)] = 0;
    return status;
  }
  void expect_all_succeed() {
    for (int rank = 0; rank < size_; ++rank) EXPECT_EQ(wait(rank), 0) << "rank " << rank;
  }

  // Waits until `done` holds; fails the test past a deadline.
  template <class Done>
  static void until(Done done, const std::string& what) {
    const auto deadline = steady_clock::now() + std::chrono::seconds(200);
    while (!done()) {
      ASSERT_LT(steady_clock::now(), deadline) << what;
      std::this_thread::yield();
    }
  }

 private:
  // Failures so far: nothing else is recorded by these tests.
  static int failures_seen() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    return test->result()->total_part_count();
  }

  [[noreturn]] void be_rank(int rank, world_shape shape, const body& run) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int before = failures_seen();  // the parent's
    {
      auto plane = open_shared_memory({.epoch = epoch, .rank = rank, .shape = shape},
                                      base::fd(::dup(segment_.get())));
      EXPECT_TRUE(plane.has_value());
      auto groups = (*plane)->connect({}, std::chrono::seconds(60));
      EXPECT_TRUE(groups.has_value()) << groups.error().message;
      reports_[rank].connected = groups.has_value();
      if (groups) run(*groups, reports_[rank]);
    }
    std::fflush(nullptr);
    std::_Exit(failures_seen() == before ? 0 : 1);
  }

  const int size_;
  const base::fd segment_;
  shared_segment_watch watch_;
  rank_report* const reports_;
  std::vector<pid_t> processes_;
};

}  // namespace troupe::transport::testing
