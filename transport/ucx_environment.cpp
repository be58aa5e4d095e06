#include "transport/ucx_environment.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

namespace troupe::transport {
namespace {

// A port that UCX has used cannot be bound again for a minute, and UCX does not ask to. The default
// range of --data-plane-ports has 16, the last of which is the supervisors'.
constexpr int ports_min = 15;

tl::unexpected<base::error> refuse(std::string message) {
  return base::fail(base::error_code::invalid_argument, "transport", std::move(message));
}

std::string names_of_interfaces() {
  const std::unique_ptr<struct if_nameindex, decltype(&if_freenameindex)> all(if_nameindex(),
                                                                              if_freenameindex);
  std::string names;
  for (const struct if_nameindex* one = all.get(); one != nullptr && one->if_index != 0; ++one) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", one->if_name);
  }
  return names;
}

// Names of devices as the kernel and UCX write them, nothing that UCX could read as more.
bool well_formed(std::string_view devices) {
  return devices.size() <= 1024 && std::all_of(devices.begin(), devices.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  std::string_view("_-.:,@").find(c) != std::string_view::npos;
         });
}

// UCX only warns of a device that does not exist and then reaches nobody. Devices of other kinds
// (mlx5_0:1) and lists are left to it.
base::result<void> check_interface(const std::string& devices) {
  if (!well_formed(devices)) {
    return refuse(fmt::format("'{}' is no network device for UCX; this host has {}", devices,
                              names_of_interfaces()));
  }
  if (devices.find_first_of(":,") != std::string::npos) return {};
  if (if_nametoindex(devices.c_str()) == 0) {
    return refuse(fmt::format("this host has no network device '{}' for UCX; it has {}", devices,
                              names_of_interfaces()));
  }
  return {};
}

base::result<void> set_default(const char* name, const std::string& value) {
  if (setenv(name, value.c_str(), 0) == 0) return {};
  return base::fail(base::error_code::resource_exhausted, "transport",
                    fmt::format("cannot set {}: {}", name, std::strerror(errno)));
}

// When a peer dies while UCX sends it the caller's own bytes over TCP (uct_tcp_ep_sendv), UCX
// counts the end of that message twice and aborts the process; seen in 1.13.1, the source is the
// same in 1.22. So over TCP it sends copies. A device with a port ("mlx5_0:1") is not TCP's; beside
// one these settings would cost RDMA its zero copies.
base::result<void> avoid_zero_copy_over_tcp() {
  const char* const devices = std::getenv("UCX_NET_DEVICES");
  if (devices == nullptr || std::strchr(devices, ':') != nullptr) return {};
  TROUPE_TRY_VOID(set_default("UCX_ZCOPY_THRESH", "inf"));
  return set_default("UCX_TCP_PUT_ENABLE", "n");
}

base::result<void> check_ports(const ucx_environment& environment) {
  if (environment.port_first == 0 && environment.port_last == 0) return {};
  const int count = environment.port_last - environment.port_first + 1;
  if (environment.port_first == 0 || count < ports_min) {
    return refuse(
        fmt::format("UCX needs a range of at least {} ports, since each stays taken for "
                    "a minute after use; {}-{} is not one",
                    ports_min, environment.port_first, environment.port_last));
  }
  return {};
}

}  // namespace

base::result<std::string> interface_of(const std::string& numeric_address) {
  std::array<unsigned char, sizeof(in6_addr)> wanted{};
  const int family = numeric_address.find(':') == std::string::npos ? AF_INET : AF_INET6;
  if (inet_pton(family, numeric_address.c_str(), wanted.data()) != 1) {
    return refuse(fmt::format("'{}' is no numeric address", numeric_address));
  }
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return base::fail(base::error_code::unavailable, "transport",
                      fmt::format("cannot list this host's addresses: {}", std::strerror(errno)));
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> all(list, freeifaddrs);
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != family) continue;
    const void* bytes = family == AF_INET
                            ? static_cast<const void*>(
                                  &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr)
                            : static_cast<const void*>(
                                  &reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr);
    const std::size_t length = family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr);
    if (std::memcmp(bytes, wanted.data(), length) == 0) return std::string(one->ifa_name);
  }
  return refuse(fmt::format("{} is no address of this host", numeric_address));
}

base::result<void> prepare_ucx_environment(const ucx_environment& environment) {
  TROUPE_TRY_VOID(check_ports(environment));
  if (std::getenv("UCX_NET_DEVICES") == nullptr) {
    std::string devices = environment.interface;
    if (devices.empty()) {
      if (environment.local_address.empty()) {
        return refuse("UCX needs the network device that the gang's hosts reach each other by");
      }
      TROUPE_TRY(found, interface_of(environment.local_address));
      devices = found;
    }
    TROUPE_TRY_VOID(check_interface(devices));
    TROUPE_TRY_VOID(set_default("UCX_NET_DEVICES", devices));
  }
  if (environment.port_first != 0) {
    TROUPE_TRY_VOID(set_default(
        "UCX_TCP_PORT_RANGE", fmt::format("{}-{}", environment.port_first, environment.port_last)));
  }
  // UCX would print its log on stdout, catch SIGSEGV, SIGBUS, SIGFPE and SIGILL to print a stack
  // and SIGHUP to stop for a debugger.
  static constexpr std::array<std::pair<const char*, const char*>, 6> quiet = {{
      {"UCX_LOG_FILE", "stderr"},
      {"UCX_LOG_LEVEL", "warn"},
      {"UCX_HANDLE_ERRORS", "none"},
      {"UCX_ERROR_SIGNALS", ""},
      {"UCX_DEBUG_SIGNO", "0"},
      {"UCX_WARN_UNUSED_ENV_VARS", "n"},
  }};
  for (const auto& [name, value] : quiet) TROUPE_TRY_VOID(set_default(name, value));
  return avoid_zero_copy_over_tcp();
}

}  // namespace troupe::transport
