// One rank's process as a member of its gang: worker, supervisor's channel, and on rank 0 the gang.
//
// Life cycle: start() once; wait() on the main thread until the rank is to end; the process then
// exits with that code. On rank 0 an epoch_driver gets each epoch's executor: the leader when it
// serves, a command of its own otherwise.
//
//   TROUPE_TRY(process, actors::gang_process::start(std::move(options), log, &driver));
//   const schemas::give_up end = process->wait();
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "actors/gang/gang_runtime.hpp"
#include "actors/rank/rank_host.hpp"
#include "actors/worker/worker_runtime.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"

namespace troupe::actors {

class gang_process;

// Calls come on the gang's thread and must not block. Answers: gang_process::canary_done, ...
class epoch_driver {
 public:
  epoch_driver() = default;
  epoch_driver(const epoch_driver&) = delete;
  epoch_driver& operator=(const epoch_driver&) = delete;
  virtual ~epoch_driver() = default;

  // First of all, before anything runs: where the answers go.
  virtual void attach(gang_process& process) = 0;
  // The gang is connected: do a real step, then go on. Destroying the executor leaves the epoch.
  virtual void begin_epoch(base::epoch_id epoch, std::unique_ptr<engine::executor> ranks) = 0;
  virtual void end_epoch(base::epoch_id epoch, const std::string& reason) = 0;
  virtual void drain(std::chrono::milliseconds patience) = 0;
  // The gang's state has changed.
  virtual void view_changed(const gang_view& view) = 0;
};

struct gang_process_options {
  rank_host_options host;  // tell_phase and end are set by gang_process
  worker_options worker;
  control_plane_options plane;
  base::fd channel;  // to the supervisor
  // The leader's control plane; none: the supervisor says where (one host).
  std::optional<worker::leader_at> leader = {};

  // Rank 0:
  gang_options gang;
  std::string listen_host = "127.0.0.1";
  std::uint16_t listen_port = 0;
};

class gang_process {
 public:
  // `driver` is rank 0's, nullptr elsewhere. Lifetime: log and driver outlive the process.
  // Errors: those of the runtimes.
  [[nodiscard]] static base::result<std::unique_ptr<gang_process>> start(
      gang_process_options options, const base::logger& log, epoch_driver* driver);
  ~gang_process();

  // Blocks until this rank is to end: give-up, drained, or the supervisor has gone.
  [[nodiscard]] schemas::give_up wait();

  // From the driver, any thread.
  void canary_done(base::epoch_id epoch);
  void epoch_failed(base::epoch_id epoch, const std::string& reason);
  void drained();
  // Ends wait() with that.
  void end(const schemas::give_up& last);
  // A line for the supervisor's stdout.
  void announce(std::string json);

  [[nodiscard]] gang_view view() const;
  [[nodiscard]] transport::data_plane_counters counters() const;
  [[nodiscard]] std::chrono::milliseconds supervisor_silence() const noexcept;

 private:
  class state;
  explicit gang_process(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::actors
