#include "transport/ucx_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

namespace troupe::transport {
namespace {

tl::unexpected<base::error> refuse(std::string message) {
  return base::fail(base::error_code::failed_precondition, "transport", std::move(message));
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

unsigned ucx_library::version() const noexcept {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  get_version(&major, &minor, &release);
  return major * 1000 + minor;
}

base::result<ucx_library> load_ucx() {
  void* const library = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    return refuse(fmt::format(
        "the data plane 'ucx' needs libucp.so.0 ({}): install UCX or choose 'tls'", dlerror()));
  }
  ucx_library ucx;
  const bool complete =
      find(library, "ucp_get_version", ucx.get_version) &&
      find(library, "ucp_config_read", ucx.config_read) &&
      find(library, "ucp_config_release", ucx.config_release) &&
      find(library, "ucp_init_version", ucx.init_version) &&
      find(library, "ucp_cleanup", ucx.cleanup) &&
      find(library, "ucp_worker_create", ucx.worker_create) &&
      find(library, "ucp_worker_destroy", ucx.worker_destroy) &&
      find(library, "ucp_worker_query", ucx.worker_query) &&
      find(library, "ucp_worker_release_address", ucx.worker_release_address) &&
      find(library, "ucp_worker_get_efd", ucx.worker_get_efd) &&
      find(library, "ucp_worker_arm", ucx.worker_arm) &&
      find(library, "ucp_worker_progress", ucx.worker_progress) &&
      find(library, "ucp_worker_set_am_recv_handler", ucx.worker_set_am_recv_handler) &&
      find(library, "ucp_ep_create", ucx.ep_create) &&
      find(library, "ucp_ep_close_nbx", ucx.ep_close_nbx) &&
      find(library, "ucp_am_send_nbx", ucx.am_send_nbx) &&
      find(library, "ucp_am_recv_data_nbx", ucx.am_recv_data_nbx) &&
      find(library, "ucp_am_data_release", ucx.am_data_release) &&
      find(library, "ucp_request_check_status", ucx.request_check_status) &&
      find(library, "ucp_request_free", ucx.request_free) &&
      find(library, "ucs_status_string", ucx.status_string);
  if (!complete) return refuse(fmt::format("libucp.so.0 is too old: {}", dlerror()));
  if (ucx.version() < UCP_API_MAJOR * 1000 + UCP_API_MINOR) {
    return refuse(fmt::format("libucp.so.0 is version {}.{}, at least {}.{} is needed",
                              ucx.version() / 1000, ucx.version() % 1000, UCP_API_MAJOR,
                              UCP_API_MINOR));
  }
  return ucx;
}

}  // namespace troupe::transport
