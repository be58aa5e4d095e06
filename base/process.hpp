// Child processes: start with chosen descriptors, wait without blocking, end with their parent.
//
//   TROUPE_TRY(child, base::spawn({.program = "/proc/self/exe",
//                                  .arguments = {"troupe", "rank"},
//                                  .descriptors = {{.from = channel.get(), .as = 3}}}));
//   poll(child.handle) ...; TROUPE_TRY(change, base::change_of(child));
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

struct inherited_descriptor {
  int from = -1;  // in this process; close-on-exec or not
  int as = -1;    // in the child
};

struct spawn_options {
  std::string program;                 // path
  std::vector<std::string> arguments;  // the first is the program's name
  // NAME=value; they replace this process's entries of the same name.
  std::vector<std::string> environment = {};
  // Beside 0, 1 and 2, which are inherited unless they are named here. All else is closed.
  std::vector<inherited_descriptor> descriptors = {};
  bool null_input = false;  // stdin is /dev/null
  // Keys of the terminal (Ctrl-C, Ctrl-Z) then reach only this process.
  bool own_process_group = false;
};

struct child_process {
  pid_t id = 0;
  fd handle;  // pidfd: readable when the process has ended
};

// Starts a process with an empty signal mask and default signal actions, but SIGPIPE and SIGHUP,
// which stay ignored where this process ignores them.
// Errors: not_found, permission_denied (the program), resource_exhausted, unavailable.
[[nodiscard]] result<child_process> spawn(const spawn_options& options);

struct child_change {
  enum class what : std::uint8_t { exited, killed, stopped };
  what kind = what::exited;
  int number = 0;  // exit code or signal
};

// "exited with code 1", "killed by signal 9 (SIGKILL)", "stopped by signal 19 (SIGSTOP)".
[[nodiscard]] std::string to_string(const child_change& change);

// What has happened to a child since the last call, nothing if nothing. An ended child is reaped.
// SIGCHLD tells of stops, the handle does not. Errors: not_found (not a child of ours any more).
[[nodiscard]] result<std::optional<child_change>> change_of(const child_process& child);

// Sends a signal. A child that has ended already is no error.
void send_signal(const child_process& child, int signal) noexcept;

// Reaps ended children that are not among `known` (PID 1 inherits orphans) and gives their number.
int reap_orphans(const std::vector<pid_t>& known);
// From now on orphaned descendants become children of this process, as they do for PID 1.
[[nodiscard]] result<void> adopt_orphans();

// This process is killed when the thread that started it ends. Called first thing in a child.
// Errors: unavailable (`parent` is gone already: the process should exit).
[[nodiscard]] result<void> die_with_parent(pid_t parent);

// Units: ns of CPU that a thread has used. Errors: not_found (no such thread, or no such file).
[[nodiscard]] result<std::uint64_t> thread_cpu_ns(pid_t process, pid_t thread);

}  // namespace troupe::base
