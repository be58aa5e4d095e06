#include "kernels/nccl_environment.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace troupe::kernels {
namespace {

base::result<void> set_default(const char* name, const std::string& value) {
  if (setenv(name, value.c_str(), 0) == 0) return {};
  return base::fail(base::error_code::resource_exhausted, "kernels",
                    std::string("cannot set ") + name + ": " + std::strerror(errno));
}

// Nothing that NCCL would read as a list or a prefix.
bool well_formed(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

}  // namespace

base::result<void> prepare_nccl_environment(const std::string& network_device) {
  if (!well_formed(network_device)) {
    return base::fail(base::error_code::invalid_argument, "kernels",
                      "'" + network_device + "' is no network device for NCCL");
  }
  TROUPE_TRY_VOID(set_default("NCCL_SOCKET_IFNAME", "=" + network_device));
  return set_default("NCCL_RAS_ENABLE", "0");
}

}  // namespace troupe::kernels
