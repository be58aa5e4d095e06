#include "base/signals.hpp"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace troupe::base {

result<signal_source> signal_source::take(std::initializer_list<int> numbers) {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int number : numbers) {
    // A blocked signal is queued even where it is ignored, so it has to be left out.
    struct sigaction action {};
    ::sigaction(number, nullptr, &action);
    if (number == SIGCHLD || action.sa_handler != SIG_IGN) sigaddset(&wanted, number);
  }
  fd descriptor(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor) {
    return fail(error_code::resource_exhausted, "base",
                fmt::format("cannot watch signals: {}", std::system_category().message(errno)));
  }
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &wanted, &before);
  return signal_source(std::move(descriptor), before);
}

signal_source::~signal_source() {
  if (descriptor_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> signal_source::next() noexcept {
  signalfd_siginfo info{};
  if (::read(descriptor_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) {
    return std::nullopt;
  }
  return static_cast<int>(info.ssi_signo);
}

void ignore_broken_pipes() noexcept { std::signal(SIGPIPE, SIG_IGN); }

}  // namespace troupe::base
