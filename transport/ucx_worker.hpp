// One UCX context and worker: made for one epoch, progressed by one thread at a time, destroyed
// with the epoch, which frees all it has connected. Internal to the UCX data plane.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "transport/ucx_library.hpp"

namespace troupe::transport {

class ucx_worker {
 public:
  using clock = std::chrono::steady_clock;

  // `ranks`: of the gang, to choose how long to spin and how UCX sizes its tables.
  // Errors: failed_precondition (no UCX, prepare_ucx_environment() not called), unavailable (the
  // device or port range gives no connection).
  [[nodiscard]] static base::result<std::unique_ptr<ucx_worker>> open(int ranks);

  ucx_worker(const ucx_worker&) = delete;
  ucx_worker& operator=(const ucx_worker&) = delete;
  ~ucx_worker();

  [[nodiscard]] const ucx_library& ucx() const noexcept { return ucx_; }
  [[nodiscard]] ucp_worker_h handle() const noexcept { return worker_; }
  [[nodiscard]] const std::vector<std::uint8_t>& address() const noexcept { return address_; }

  // Progresses once; after many turns in a row without an event it sleeps until there is one, or
  // wake(), or `until`. The caller looks at what it waits for between turns.
  void turn(std::optional<clock::time_point> until = std::nullopt);
  // Ends a sleep in turn(), now and for ever. Any thread.
  void wake() noexcept;

  [[nodiscard]] std::string text(ucs_status_t status) const { return ucx_.status_string(status); }

 private:
  ucx_worker(const ucx_library& ucx, int spins) : ucx_(ucx), spins_(spins) {}
  base::result<void> make_context(int ranks);
  base::result<void> make_worker();
  void sleep(std::optional<clock::time_point> until);

  const ucx_library ucx_;
  const int spins_;
  int idle_turns_ = 0;
  int event_fd_ = -1;  // UCX's
  base::fd wake_fd_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  std::vector<std::uint8_t> address_;
};

}  // namespace troupe::transport
