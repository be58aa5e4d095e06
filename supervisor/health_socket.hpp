// The unix socket on which a supervisor tells its status: one datagram to whoever connects, nothing
// is read. Folder <state_dir>/run of mode 0700, socket of mode 0600.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "supervisor/health.hpp"
#include "supervisor/poll_set.hpp"

namespace troupe::supervisor {

inline constexpr std::size_t health_text_bytes_max = 64U << 10;
[[nodiscard]] std::string to_text(const health_status& status);
// Errors: invalid_argument (not such a text: which line).
[[nodiscard]] base::result<health_status> parse_health(std::string_view text);

class health_socket {
 public:
  struct open_options {
    std::string state_dir;
    std::string name;  // one that another running supervisor has gets this process's id behind it
  };
  // Makes the folders, and removes sockets that nobody listens on any more.
  // Errors: permission_denied, failed_precondition (the folder is another user's), unavailable.
  [[nodiscard]] static base::result<health_socket> open(const open_options& options);
  health_socket(health_socket&& other) noexcept = default;
  health_socket& operator=(health_socket&&) = delete;
  ~health_socket();

  void watch(poll_set& polls, const std::function<health_status()>& status) const;

 private:
  health_socket(base::fd folder, std::string file, base::fd socket)
      : folder_(std::move(folder)), file_(std::move(file)), socket_(std::move(socket)) {}
  base::fd folder_;
  std::string file_;
  base::fd socket_;
};

// The folder's sockets: names without ".socket", and a connection to one of them.
struct health_folder {
  static base::result<base::fd> open(const std::filesystem::path& run);
  static std::vector<std::string> names(const base::fd& folder);
  // Errors: not_found (nobody listens), deadline_exceeded (its backlog is full).
  static base::result<base::fd> connect(const base::fd& folder, const std::string& name);
};

}  // namespace troupe::supervisor
