// Looks a host name up in a child process, since the system's resolver blocks for as long as it
// likes. One name at a time.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/process.hpp"

namespace troupe::supervisor {

class resolver {
 public:
  static constexpr std::chrono::milliseconds patience{5000};

  resolver() = default;
  resolver(const resolver&) = delete;
  resolver& operator=(const resolver&) = delete;
  ~resolver() { stop(); }

  // Starts. A numeric host needs no child: its answer is there at once.
  // Errors: resource_exhausted (no process or pipe).
  [[nodiscard]] base::result<void> start(const std::string& host);
  // Readable when there is an answer; -1: nothing is looked up.
  [[nodiscard]] int descriptor() const noexcept { return pipe_.get(); }
  [[nodiscard]] std::optional<base::steady_time> due() const;
  [[nodiscard]] std::optional<pid_t> child() const;
  // Numeric addresses. Errors: as base::resolve(); deadline_exceeded.
  [[nodiscard]] base::result<std::vector<std::string>> answer();

 private:
  void stop();
  std::string host_;
  base::fd pipe_;
  base::steady_time due_;
  pid_t child_ = 0;
};

}  // namespace troupe::supervisor
