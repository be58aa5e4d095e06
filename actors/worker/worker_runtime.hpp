// A rank's worker at work: its machine, and the control connection that it dials.
//
//   TROUPE_TRY(worker, actors::worker_runtime::start(options, host));
//   worker->post(actors::worker::leader_at{"127.0.0.1", port});   // any thread
#pragma once

#include <memory>

#include "actors/control_plane_options.hpp"
#include "actors/worker/worker_host.hpp"
#include "actors/worker/worker_machine.hpp"

namespace troupe::actors {

struct worker_runtime_options {
  worker_options worker;
  control_plane_options plane;
};

class worker_runtime {
 public:
  // Begins at once with loading. `host` outlives the runtime.
  // Errors: failed_precondition, invalid_argument (credentials).
  [[nodiscard]] static base::result<std::unique_ptr<worker_runtime>> start(
      worker_runtime_options options, worker_host& host);
  ~worker_runtime();  // hangs up; the host is not called any more
  worker_runtime(const worker_runtime&) = delete;
  worker_runtime& operator=(const worker_runtime&) = delete;

  // Any thread.
  void post(worker::event event);

 private:
  struct state;
  explicit worker_runtime(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::actors
