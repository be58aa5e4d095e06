// Signals as readable events of one descriptor (signalfd) in place of handlers.
//
//   TROUPE_TRY(signals, base::signal_source::take({SIGCHLD, SIGTERM, SIGINT}));
//   poll(signals.descriptor()) ...; while (auto number = signals.next()) ...
#pragma once

#include <csignal>
#include <initializer_list>
#include <optional>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

class signal_source {
 public:
  // Blocks the signals in this thread (threads started later inherit that) until destroyed. A
  // signal other than SIGCHLD that this process was started to ignore (nohup) stays ignored.
  [[nodiscard]] static result<signal_source> take(std::initializer_list<int> numbers);
  signal_source(signal_source&&) noexcept = default;
  signal_source& operator=(signal_source&&) = delete;
  ~signal_source();

  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
  // The next signal that came, none if none waits. Several of one number may come as one.
  [[nodiscard]] std::optional<int> next() noexcept;

 private:
  signal_source(fd descriptor, const sigset_t& before) noexcept
      : descriptor_(std::move(descriptor)), before_(before) {}
  fd descriptor_;
  sigset_t before_;
};

// Writes to a closed pipe or socket fail with EPIPE from now on, in this process and those it
// starts.
void ignore_broken_pipes() noexcept;

}  // namespace troupe::base
