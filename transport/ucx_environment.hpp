// What UCX is told through environment variables: the network device it may use, its ports, where
// it logs. UCX has no other way to be told most of these.
//
// Called once, at process start, before any other thread runs (setenv), in processes that use UCX
// only. UCX itself is loaded by open_ucx(), so its start-up code reads what is set here. A variable
// the user has set stays as it is.
//
//   TROUPE_TRY_VOID(transport::prepare_ucx_environment(
//       {.interface = "eth0", .port_first = 29600, .port_last = 29631}));
#pragma once

#include <cstdint>
#include <string>

#include "base/error.hpp"

namespace troupe::transport {

struct ucx_environment {
  // A network device ("eth0"), or devices as UCX_NET_DEVICES lists them ("mlx5_0:1,eth0").
  std::string interface {};
  // Used when `interface` is empty: a numeric address of this host; its device is taken.
  std::string local_address{};
  // The TCP ports UCX may listen on, one for each live epoch and rank of this host. A port stays
  // taken for a minute after its connections end: at least 15 a rank. 0, 0: any free port.
  std::uint16_t port_first = 0;
  std::uint16_t port_last = 0;
};

// Sets UCX_NET_DEVICES, UCX_TCP_PORT_RANGE; logs to stderr from warnings up, no signal handlers.
// Errors: invalid_argument (no such device or address, bad port range).
[[nodiscard]] base::result<void> prepare_ucx_environment(const ucx_environment& environment);

// The name of the device that holds a numeric address of this host. Errors: invalid_argument.
[[nodiscard]] base::result<std::string> interface_of(const std::string& numeric_address);

}  // namespace troupe::transport
