// libucp, loaded when the first UCX data plane is opened. Internal to the UCX data plane.
//
// Not linked: the start-up code of libucs reads its environment once, before main(), installs
// handlers for five signals (SIGHUP among them) unless that environment says otherwise, and would
// do so in every process of this binary. Loaded late, it sees what prepare_ucx_environment() set,
// other processes stay free of it, and a host without UCX can run the rest.
#pragma once

#include <ucp/api/ucp.h>

#include <string>

#include "base/error.hpp"

namespace troupe::transport {

// The functions in use. Never unloaded: libucs keeps threads and hooks.
struct ucx_library {
  decltype(&::ucp_get_version) get_version = nullptr;
  decltype(&::ucp_config_read) config_read = nullptr;
  decltype(&::ucp_config_release) config_release = nullptr;
  decltype(&::ucp_init_version) init_version = nullptr;
  decltype(&::ucp_cleanup) cleanup = nullptr;
  decltype(&::ucp_worker_create) worker_create = nullptr;
  decltype(&::ucp_worker_destroy) worker_destroy = nullptr;
  decltype(&::ucp_worker_query) worker_query = nullptr;
  decltype(&::ucp_worker_release_address) worker_release_address = nullptr;
  decltype(&::ucp_worker_get_efd) worker_get_efd = nullptr;
  decltype(&::ucp_worker_arm) worker_arm = nullptr;
  decltype(&::ucp_worker_progress) worker_progress = nullptr;
  decltype(&::ucp_worker_set_am_recv_handler) worker_set_am_recv_handler = nullptr;
  decltype(&::ucp_ep_create) ep_create = nullptr;
  decltype(&::ucp_ep_close_nbx) ep_close_nbx = nullptr;
  decltype(&::ucp_am_send_nbx) am_send_nbx = nullptr;
  decltype(&::ucp_am_recv_data_nbx) am_recv_data_nbx = nullptr;
  decltype(&::ucp_am_data_release) am_data_release = nullptr;
  decltype(&::ucp_request_check_status) request_check_status = nullptr;
  decltype(&::ucp_request_free) request_free = nullptr;
  decltype(&::ucs_status_string) status_string = nullptr;

  // major * 1000 + minor of the library that was found.
  [[nodiscard]] unsigned version() const noexcept;
};

// Errors: failed_precondition (not installed, or another interface version).
[[nodiscard]] base::result<ucx_library> load_ucx();

}  // namespace troupe::transport
