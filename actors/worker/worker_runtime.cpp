#include "actors/worker/worker_runtime.hpp"

#include <atomic>
#include <utility>

#include "actors/worker/worker_actor.hpp"

namespace troupe::actors {

struct worker_runtime::state {
  explicit state(const worker_runtime_options& options, worker_host& host)
      : system(config),
        dialer(system.spawn<caf::detached>(dialer_actor, options.plane)),
        worker(system.spawn(worker_actor, options.worker, &host, dialer)) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    caf::anon_send_exit(worker, caf::exit_reason::kill);
    caf::anon_send_exit(dialer, caf::exit_reason::kill);
    worker = nullptr;
    dialer = nullptr;
    system.await_all_actors_done();
  }

  control_plane_config config;
  caf::actor_system system;
  caf::actor dialer;
  caf::actor worker;
};

base::result<std::unique_ptr<worker_runtime>> worker_runtime::start(worker_runtime_options options,
                                                                    worker_host& host) {
  TROUPE_TRY(credentials, read_credentials(options.plane));
  static_cast<void>(credentials);
  auto made = std::make_unique<state>(options, host);
  // Weak: whoever still holds the function does not keep the system alive.
  const auto worker = caf::actor_cast<caf::weak_actor_ptr>(made->worker);
  host.begin([worker](worker::event event) {
    if (const auto alive = caf::actor_cast<caf::actor>(worker)) {
      caf::anon_send(alive, std::move(event));
    }
  });
  std::unique_ptr<worker_runtime> runtime(new worker_runtime(std::move(made)));
  runtime->post(worker::started{});
  return runtime;
}

worker_runtime::worker_runtime(std::unique_ptr<state> made) : state_(std::move(made)) {}
worker_runtime::~worker_runtime() = default;

void worker_runtime::post(worker::event event) { caf::anon_send(state_->worker, std::move(event)); }

}  // namespace troupe::actors
