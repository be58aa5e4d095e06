#include "base/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>
#include <system_error>

namespace troupe::base {
namespace {

std::string text_of(int number) { return std::system_category().message(number); }

tl::unexpected<error> refuse(int number, const std::string& what) {
  error_code code = error_code::unavailable;
  if (number == ENOENT) code = error_code::not_found;
  if (number == EACCES || number == EPERM) code = error_code::permission_denied;
  if (number == EAGAIN || number == ENOMEM || number == EMFILE || number == ENFILE) {
    code = error_code::resource_exhausted;
  }
  return fail(code, "base", fmt::format("{}: {}", what, text_of(number)),
              code == error_code::resource_exhausted);
}

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

// This process's environment with some entries replaced.
std::vector<std::string> joined_environment(const std::vector<std::string>& ours) {
  std::vector<std::string> all = ours;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const bool replaced = std::any_of(ours.begin(), ours.end(), [&](const std::string& entry) {
      return name_of(entry) == name_of(*variable);
    });
    if (!replaced) all.emplace_back(*variable);
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  all.reserve(words.size() + 1);
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

struct file_actions {
  file_actions() { posix_spawn_file_actions_init(&value); }
  file_actions(const file_actions&) = delete;
  file_actions& operator=(const file_actions&) = delete;
  ~file_actions() { posix_spawn_file_actions_destroy(&value); }
  posix_spawn_file_actions_t value{};
};

struct attributes {
  attributes() { posix_spawnattr_init(&value); }
  attributes(const attributes&) = delete;
  attributes& operator=(const attributes&) = delete;
  ~attributes() { posix_spawnattr_destroy(&value); }
  posix_spawnattr_t value{};
};

// Copies above every target number first: a dup2 then never overwrites a source that is still to
// come, and always clears close-on-exec.
result<void> arrange(const spawn_options& options, file_actions& actions, std::vector<fd>& copies) {
  int last = STDERR_FILENO;
  for (const inherited_descriptor& one : options.descriptors) last = std::max(last, one.as);
  for (const inherited_descriptor& one : options.descriptors) {
    fd copy(::fcntl(one.from, F_DUPFD_CLOEXEC, last + 1));
    if (!copy) return refuse(errno, "cannot copy a descriptor for a child");
    copies.push_back(std::move(copy));
  }
  if (options.null_input) {
    posix_spawn_file_actions_addopen(&actions.value, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  }
  for (std::size_t at = 0; at < copies.size(); ++at) {
    posix_spawn_file_actions_adddup2(&actions.value, copies[at].get(), options.descriptors[at].as);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions.value, last + 1);
  return {};
}

void set_attributes(const spawn_options& options, attributes& set) {
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&set.value, &none);
  sigset_t restored;
  sigfillset(&restored);
  sigdelset(&restored, SIGPIPE);
  sigdelset(&restored, SIGHUP);
  posix_spawnattr_setsigdefault(&set.value, &restored);
  int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (options.own_process_group) {
    posix_spawnattr_setpgroup(&set.value, 0);
    flags |= POSIX_SPAWN_SETPGROUP;
  }
  posix_spawnattr_setflags(&set.value, static_cast<short>(flags));
}

}  // namespace

result<child_process> spawn(const spawn_options& options) {
  std::vector<std::string> words = options.arguments;
  std::vector<std::string> variables = joined_environment(options.environment);
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> envp = pointers(variables);
  file_actions actions;
  std::vector<fd> copies;
  TROUPE_TRY_VOID(arrange(options, actions, copies));
  attributes set;
  set_attributes(options, set);
  pid_t id = 0;
  const int outcome = ::posix_spawn(&id, options.program.c_str(), &actions.value, &set.value,
                                    argv.data(), envp.data());
  if (outcome != 0) return refuse(outcome, fmt::format("cannot start {}", options.program));
  // glibc 2.36 declares pidfd_open without C linkage. A child that has not been waited for keeps
  // its number, so this cannot name another process.
  fd handle(static_cast<int>(::syscall(SYS_pidfd_open, id, 0)));
  if (!handle) {
    const int number = errno;
    ::kill(id, SIGKILL);
    ::waitpid(id, nullptr, 0);
    return refuse(number, "cannot watch a child process");
  }
  return child_process{.id = id, .handle = std::move(handle)};
}

std::string to_string(const child_change& change) {
  if (change.kind == child_change::what::exited) {
    return fmt::format("exited with code {}", change.number);
  }
  const char* name = ::sigabbrev_np(change.number);
  const std::string known = name == nullptr ? "" : fmt::format(" (SIG{})", name);
  return fmt::format("{} by signal {}{}",
                     change.kind == child_change::what::killed ? "killed" : "stopped",
                     change.number, known);
}

result<std::optional<child_change>> change_of(const child_process& child) {
  siginfo_t info{};
  int outcome = 0;
  do {
    info.si_pid = 0;
    outcome = ::waitid(P_PID, static_cast<id_t>(child.id), &info, WEXITED | WSTOPPED | WNOHANG);
  } while (outcome < 0 && errno == EINTR);
  if (outcome < 0) {
    return fail(error_code::not_found, "base",
                fmt::format("process {} is no child of this one", child.id));
  }
  if (info.si_pid == 0) return std::optional<child_change>{};
  switch (info.si_code) {
    case CLD_EXITED:
      return std::optional(child_change{child_change::what::exited, info.si_status});
    case CLD_STOPPED:
    case CLD_TRAPPED:
      return std::optional(child_change{child_change::what::stopped, info.si_status});
    default:
      return std::optional(child_change{child_change::what::killed, info.si_status});
  }
}

void send_signal(const child_process& child, int signal) noexcept {
  ::syscall(SYS_pidfd_send_signal, child.handle.get(), signal, nullptr, 0);
}

int reap_orphans(const std::vector<pid_t>& known) {
  int reaped = 0;
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) return reaped;
    // A known one that ended since it was last looked at has its own SIGCHLD coming.
    if (info.si_pid == 0 || std::find(known.begin(), known.end(), info.si_pid) != known.end()) {
      return reaped;
    }
    if (::waitpid(info.si_pid, nullptr, WNOHANG) > 0) ++reaped;
  }
}

result<void> adopt_orphans() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return refuse(errno, "cannot become the reaper of orphaned processes");
  }
  return {};
}

result<void> die_with_parent(pid_t parent) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
    return refuse(errno, "cannot ask to end with the parent process");
  }
  // It may have ended before the call.
  if (::getppid() != parent) {
    return fail(error_code::unavailable, "base",
                fmt::format("the process that started this one, {}, is gone", parent));
  }
  return {};
}

result<std::uint64_t> thread_cpu_ns(pid_t process, pid_t thread) {
  const std::string path = fmt::format("/proc/{}/task/{}/schedstat", process, thread);
  const fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  const ssize_t length = file ? ::read(file.get(), text.data(), text.size()) : -1;
  std::uint64_t used = 0;
  if (length <= 0 || std::from_chars(text.data(), text.data() + length, used).ec != std::errc{}) {
    return fail(error_code::not_found, "base", fmt::format("no CPU time in {}", path));
  }
  return used;
}

}  // namespace troupe::base
