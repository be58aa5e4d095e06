#include "cli/http_listener.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "base/socket.hpp"
#include "cli/bounded_file.hpp"

namespace troupe::cli {
namespace {

constexpr std::size_t key_file_bytes_max = std::size_t{1} << 20;

// Who reaches the port may use the model: beyond this machine only with a key.
base::result<void> check_exposure(const std::string& host, bool has_keys) {
  const char* const allowed = std::getenv("TROUPE_ALLOW_NO_API_KEY");
  const bool loopback = host == "::1" || host == "localhost" || host.starts_with("127.");
  if (loopback || has_keys) return {};
  if (allowed != nullptr && std::string_view(allowed) == "1") return {};
  return base::fail(
      base::error_code::invalid_argument, "cli",
      "--host " + host +
          " is reachable from other machines: give --api-key-file, "
          "or set TROUPE_ALLOW_NO_API_KEY=1 where something else keeps strangers out");
}

}  // namespace

base::result<http_listener> listen_http(const std::string& host, std::uint16_t port,
                                        bool has_keys) {
  TROUPE_TRY_VOID(check_exposure(host, has_keys));
  TROUPE_TRY(socket, base::listen_on({.host = host, .port_first = port}));
  std::string url = "http://" + base::host_and_port(socket.host, socket.port);
  return http_listener{.socket = std::move(socket.descriptor), .url = std::move(url)};
}

base::result<serving::api_keys> read_api_keys(const std::string& file) {
  if (file.empty()) return serving::api_keys();
  TROUPE_TRY(text, read_bounded_file("--api-key-file", file, key_file_bytes_max));
  return serving::api_keys::parse(text, file);
}

std::size_t connections_within_limits(std::size_t wanted, const base::logger& log) {
  constexpr rlim_t others = 512;  // files, other ranks, the control plane
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return wanted;
  files.rlim_cur = std::max(files.rlim_cur, std::min<rlim_t>(files.rlim_max, wanted + others));
  if (::setrlimit(RLIMIT_NOFILE, &files) != 0) ::getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur >= wanted + others) return wanted;
  const auto room =
      static_cast<std::size_t>(std::max<rlim_t>(files.rlim_cur, others + others / 2) - others);
  log.warning(std::to_string(files.rlim_cur) + " open files are allowed (ulimit -n), so at most " +
              std::to_string(room) + " HTTP connections are taken at once");
  return room;
}

std::chrono::seconds unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
}

}  // namespace troupe::cli
