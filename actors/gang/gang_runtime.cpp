#include "actors/gang/gang_runtime.hpp"

#include <utility>

#include "actors/gang/gang_actor.hpp"

namespace troupe::actors {

struct gang_runtime::state {
  state(const gang_runtime_options& options, gang_host& called)
      : config(options.plane),
        system(config),
        gang(system.spawn(gang_actor, options.gang, &called)),
        host(options.listen_host) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    caf::anon_send_exit(gang, caf::exit_reason::kill);
    gang = nullptr;
    system.await_all_actors_done();
  }

  control_plane_config config;
  caf::actor_system system;
  caf::actor gang;
  std::string host;
  std::uint16_t port = 0;
};

base::result<std::unique_ptr<gang_runtime>> gang_runtime::start(gang_runtime_options options,
                                                                gang_host& host) {
  TROUPE_TRY(credentials, read_credentials(options.plane));
  static_cast<void>(credentials);
  auto made = std::make_unique<state>(options, host);
  // Weak: whoever still holds the function does not keep the system alive.
  const auto gang = caf::actor_cast<caf::weak_actor_ptr>(made->gang);
  host.begin([gang](gang::event event) {
    if (const auto alive = caf::actor_cast<caf::actor>(gang)) {
      caf::anon_send(alive, std::move(event));
    }
  });
  caf::anon_send(made->gang, gang::event(gang::started{}));
  TROUPE_TRY(port, publish_control(made->gang, options.listen_host, options.listen_port));
  made->port = port;
  return std::unique_ptr<gang_runtime>(new gang_runtime(std::move(made)));
}

gang_runtime::gang_runtime(std::unique_ptr<state> made) : state_(std::move(made)) {}
gang_runtime::~gang_runtime() = default;

const std::string& gang_runtime::host() const noexcept { return state_->host; }
std::uint16_t gang_runtime::port() const noexcept { return state_->port; }

void gang_runtime::post(gang::event event) { caf::anon_send(state_->gang, std::move(event)); }

}  // namespace troupe::actors
