// The gang at work in rank 0's process: its machine behind a control plane that listens.
//
//   TROUPE_TRY(gang, actors::gang_runtime::start(options, host));
//   announce(gang->host(), gang->port());
//   gang->post(actors::gang::rank_lost{...});                 // any thread
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "actors/control_plane_options.hpp"
#include "actors/gang/gang_host.hpp"

namespace troupe::actors {

struct gang_runtime_options {
  gang_options gang;
  control_plane_options plane;
  std::string listen_host = "127.0.0.1";  // numeric address of this machine
  std::uint16_t listen_port = 0;          // 0: any free one
};

class gang_runtime {
 public:
  // Listens and begins. `host` outlives the runtime.
  // Errors: unavailable (port in use: names host and port), failed_precondition, invalid_argument
  // (credentials).
  [[nodiscard]] static base::result<std::unique_ptr<gang_runtime>> start(
      gang_runtime_options options, gang_host& host);
  ~gang_runtime();  // ends every connection; the host is not called any more
  gang_runtime(const gang_runtime&) = delete;
  gang_runtime& operator=(const gang_runtime&) = delete;

  [[nodiscard]] const std::string& host() const noexcept;
  [[nodiscard]] std::uint16_t port() const noexcept;

  // Any thread.
  void post(gang::event event);

 private:
  struct state;
  explicit gang_runtime(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::actors
