// The computing thread of a rank, held by ptrace in the middle of a step while the process's other
// threads go on: unlike SIGSTOP, no change of a child tells of it. What hangs in a driver or spins
// in a lock looks like this from outside.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <future>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/memory_file.hpp"
#include "base/vitals.hpp"
#include "supervisor/supervisor.hpp"

namespace troupe::gang_test {

class held_thread {
 public:
  // Waits until the rank's vitals say that it works, and stops it there and then.
  explicit held_thread(pid_t process)
      : process_(process), tracer_([this](const std::stop_token& stop) { run(stop); }) {
    outcome_ = held_.get_future().get();
  }
  held_thread(const held_thread&) = delete;
  held_thread& operator=(const held_thread&) = delete;

  // Errors: permission_denied (this machine does not let a test trace), deadline_exceeded (it was
  // never seen at work), unavailable.
  [[nodiscard]] const base::result<void>& outcome() const noexcept { return outcome_; }

 private:
  static constexpr std::chrono::seconds patience{30};

  static tl::unexpected<base::error> refuse(const std::string& what) {
    const int number = errno;
    return base::fail(
        number == EPERM ? base::error_code::permission_denied : base::error_code::unavailable,
        "gang_test", fmt::format("{}: {}", what, std::system_category().message(number)));
  }

  // One thread traces from beginning to end: to the kernel the tracer is a thread.
  void run(const std::stop_token& stop) {
    base::result<void> outcome = hold();
    const bool held = outcome.has_value();
    held_.set_value(std::move(outcome));
    // The tracer hears of the thread's end first, and until it has asked, the killed process has
    // not ended for its parent.
    while (held && !stop.stop_requested() && !has_ended()) look_again();
    if (thread_ > 0) static_cast<void>(::ptrace(PTRACE_DETACH, thread_, nullptr, nullptr));
  }

  base::result<void> hold() {
    const std::string path =
        fmt::format("/proc/{}/fd/{}", process_, supervisor::rank_descriptors::vitals);
    const base::fd page(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!page) return refuse("cannot open " + path);
    TROUPE_TRY(view,
               base::memory_map::of(page, sizeof(base::rank_vitals), base::memory_access::read));
    const auto& vitals = *static_cast<const base::rank_vitals*>(view.data());
    const auto end = std::chrono::steady_clock::now() + patience;
    pid_t thread = 0;
    while (thread == 0 && std::chrono::steady_clock::now() < end) {
      thread = vitals.thread_id.load(std::memory_order_relaxed);
    }
    if (thread == 0) return never_at_work();
    if (::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) return refuse("cannot trace a rank");
    thread_ = thread;
    while (std::chrono::steady_clock::now() < end) {
      if (::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0)
        return refuse("PTRACE_INTERRUPT");
      TROUPE_TRY(signal, stopped());
      // It alone writes these, and it stands still.
      const bool works = vitals.doing.load(std::memory_order_acquire) ==
                         static_cast<std::uint32_t>(base::activity::working);
      if (works && vitals.thread_id.load(std::memory_order_relaxed) == thread && signal == 0) {
        return {};
      }
      if (::ptrace(PTRACE_CONT, thread, nullptr, signal) != 0) return refuse("PTRACE_CONT");
      look_again();
    }
    return never_at_work();
  }

  // The signal that stopped it, which it is to get when it goes on; 0: it was the interruption.
  base::result<std::intptr_t> stopped() const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < end) {
      int status = 0;
      const pid_t seen = ::waitpid(thread_, &status, __WALL | WNOHANG);
      if (seen < 0) return refuse("a rank's thread has gone");
      if (seen == thread_ && !WIFSTOPPED(status)) break;
      if (seen == thread_) return status >> 16 == 0 ? WSTOPSIG(status) : 0;
    }
    return base::fail(base::error_code::unavailable, "gang_test", "a rank's thread did not stop");
  }

  [[nodiscard]] bool has_ended() const {
    int status = 0;
    const pid_t seen = ::waitpid(thread_, &status, __WALL | WNOHANG);
    return seen < 0 || (seen == thread_ && !WIFSTOPPED(status));
  }

  static tl::unexpected<base::error> never_at_work() {
    return base::fail(base::error_code::deadline_exceeded, "gang_test",
                      "the rank was never seen at work");
  }
  static void look_again() { static_cast<void>(::poll(nullptr, 0, 1)); }

  const pid_t process_;
  pid_t thread_ = 0;  // of the tracer: once it traces
  std::promise<base::result<void>> held_;
  base::result<void> outcome_;
  std::jthread tracer_;  // last: it uses the others
};

}  // namespace troupe::gang_test
