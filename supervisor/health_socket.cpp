#include "supervisor/health_socket.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

namespace troupe::supervisor {
namespace {

using base::error_code;

constexpr std::string_view suffix = ".socket";

tl::unexpected<base::error> refuse(int number, const std::string& what) {
  const bool denied = number == EACCES || number == EPERM || number == EROFS;
  return base::fail(denied ? error_code::permission_denied : error_code::unavailable, "supervisor",
                    fmt::format("{}: {}", what, std::system_category().message(number)));
}

// A socket's address has 107 bytes, a state folder's path may have more: the way through an open
// descriptor of the folder is short. Shape: file is a plain name of at most 64 bytes.
sockaddr_un address_of(const base::fd& folder, const std::string& file) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder.get(), file);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

bool is_plain(std::string_view name) {
  return !name.empty() && name.size() <= 64 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char letter) {
           return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                  (letter >= '0' && letter <= '9') || letter == '-' || letter == '_' ||
                  letter == '.';
         });
}

base::fd new_socket() {
  return base::fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

bool is_taken(const base::fd& folder, const std::string& name) {
  struct stat status {};
  return ::fstatat(folder.get(), (name + std::string(suffix)).c_str(), &status,
                   AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace

base::result<base::fd> health_folder::open(const std::filesystem::path& run) {
  base::fd folder(::open(run.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!folder) return refuse(errno, fmt::format("cannot open the folder {}", run.string()));
  struct stat status {};
  if (::fstat(folder.get(), &status) != 0 || status.st_uid != ::geteuid()) {
    return base::fail(error_code::failed_precondition, "supervisor",
                      fmt::format("the folder {} belongs to another user: choose another "
                                  "--state-dir",
                                  run.string()));
  }
  return folder;
}

std::vector<std::string> health_folder::names(const base::fd& folder) {
  std::vector<std::string> all;
  const int copy = ::openat(folder.get(), ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> list(copy < 0 ? nullptr : ::fdopendir(copy),
                                                 &::closedir);
  while (list != nullptr) {
    const dirent* entry = ::readdir(list.get());
    if (entry == nullptr) break;
    const std::string_view file(entry->d_name);
    if (!file.ends_with(suffix)) continue;
    const std::string_view name = file.substr(0, file.size() - suffix.size());
    if (is_plain(name)) all.emplace_back(name);
  }
  std::sort(all.begin(), all.end());
  return all;
}

base::result<base::fd> health_folder::connect(const base::fd& folder, const std::string& name) {
  base::fd socket = new_socket();
  if (!socket) return refuse(errno, "cannot make a socket");
  const sockaddr_un address = address_of(folder, name + std::string(suffix));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EAGAIN) {
      return base::fail(
          error_code::deadline_exceeded, "supervisor",
          fmt::format("supervisor '{}' takes no connections: it hangs or is stopped", name));
    }
    return base::fail(error_code::not_found, "supervisor",
                      fmt::format("no supervisor named '{}' runs", name));
  }
  return socket;
}

base::result<health_socket> health_socket::open(const open_options& options) {
  const std::filesystem::path run = std::filesystem::path(options.state_dir) / "run";
  std::error_code problem;
  std::filesystem::create_directories(options.state_dir, problem);
  if (::mkdir(run.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return refuse(errno, fmt::format("cannot make the folder {}", run.string()));
  }
  TROUPE_TRY(folder, health_folder::open(run));
  ::fchmod(folder.get(), S_IRWXU);
  for (const std::string& name : health_folder::names(folder)) {
    const auto other = health_folder::connect(folder, name);
    if (other || other.error().code != error_code::not_found) continue;
    ::unlinkat(folder.get(), (name + std::string(suffix)).c_str(), 0);
  }
  const std::string own = fmt::format("{}", ::getpid());
  std::string name = options.name.empty() ? own : options.name;
  if (!is_plain(name)) {
    return base::fail(
        error_code::invalid_argument, "supervisor",
        fmt::format("'{}' is no name for a supervisor: letters, digits, '-', '_'", name));
  }
  if (is_taken(folder, name)) name += "-" + own;
  const std::string file = name + std::string(suffix);
  base::fd socket = new_socket();
  const sockaddr_un address = address_of(folder, file);
  if (!socket ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::fchmodat(folder.get(), file.c_str(), S_IRUSR | S_IWUSR, 0) != 0 ||
      ::listen(socket.get(), 16) != 0) {
    return refuse(errno, fmt::format("cannot listen on {}", (run / file).string()));
  }
  return health_socket(std::move(folder), file, std::move(socket));
}

health_socket::~health_socket() {
  if (folder_) ::unlinkat(folder_.get(), file_.c_str(), 0);
}

void health_socket::watch(poll_set& polls, const std::function<health_status()>& status) const {
  polls.add(socket_.get(), POLLIN, [this, &status](short) {
    const base::fd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    const std::string text = to_text(status()).substr(0, health_text_bytes_max);
    ::send(client.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  });
}

}  // namespace troupe::supervisor
