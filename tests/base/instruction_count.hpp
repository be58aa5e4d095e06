// How many instructions a call takes, in a process of its own that is stepped one by one: the same
// for two inputs where no branch depends on what tells them apart.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace troupe::base::test {

// Call it once before, so that nothing is bound or allocated for the first time in it.
// Negative: processes cannot be traced here.
inline long instructions_of(const std::function<void()>& call) {
  const pid_t child = ::fork();
  if (child < 0) return -1;
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(1);
    ::raise(SIGSTOP);
    call();
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
  long steps = 0;
  for (;;) {
    if (::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) steps = -1;
    if (steps < 0 || ::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
    if (WSTOPSIG(status) == SIGSTOP) break;
    ++steps;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return steps;
}

}  // namespace troupe::base::test
