#include "lws/container_process.hpp"

#include <fcntl.h>
#include <sched.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/process.hpp"

namespace troupe::lws {
namespace {

namespace fs = std::filesystem;
using base::error_code;
using nlohmann::json;
using done = base::result<void>;

tl::unexpected<base::error> failed(const std::string& doing) {
  const int problem = errno;
  const error_code code = problem == EPERM || problem == EACCES ? error_code::permission_denied
                          : problem == ENOENT                   ? error_code::not_found
                                                                : error_code::unavailable;
  return base::fail(code, "lws", fmt::format("{}: {}", doing, std::strerror(problem)));
}

done write_text(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written =
      file >= 0 && ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int problem = errno;
  if (file >= 0) ::close(file);
  errno = problem;
  if (!written) return failed("writing " + path);
  return {};
}

// A mount namespace; who is not root becomes what they are in a user namespace of their own.
done enter_namespaces() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (::unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) {
    auto why = failed("a mount namespace for a container");
    if (errno == EPERM) {
      why.value().message +=
          ": run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
          "kernel.apparmor_restrict_unprivileged_userns=0)";
    }
    return why;
  }
  if (user != 0) {
    TROUPE_TRY_VOID(write_text("/proc/self/setgroups", "deny"));
    TROUPE_TRY_VOID(write_text("/proc/self/uid_map", fmt::format("{0} {0} 1", user)));
    TROUPE_TRY_VOID(write_text("/proc/self/gid_map", fmt::format("{0} {0} 1", group)));
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return failed("making mounts private");
  }
  return {};
}

done bind_path(const std::string& from, const std::string& to, bool all_below) {
  if (::mount(from.c_str(), to.c_str(), nullptr, all_below ? MS_BIND | MS_REC : MS_BIND, nullptr) ==
      0) {
    return {};
  }
  return failed("binding " + from + " to " + to);
}

// A mount that came with flags keeps them: in a user namespace they are locked.
done make_read_only(const std::string& at) {
  struct statvfs of = {};
  if (::statvfs(at.c_str(), &of) != 0) return failed(at);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
  for (const auto& [held, flag] : {std::pair{ST_NOSUID, MS_NOSUID},
                                   {ST_NODEV, MS_NODEV},
                                   {ST_NOEXEC, MS_NOEXEC},
                                   {ST_NOATIME, MS_NOATIME},
                                   {ST_RELATIME, MS_RELATIME}}) {
    if ((of.f_flag & static_cast<unsigned long>(held)) != 0)
      flags |= static_cast<unsigned long>(flag);
  }
  if (::mount(nullptr, at.c_str(), nullptr, flags, nullptr) == 0) return {};
  return failed("making " + at + " read-only");
}

done touch(const fs::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return failed(path.string());
  ::close(file);
  return {};
}

// The root of a container: folders above the places of its own files are made anew and filled with
// what is there, all else is bound as it is. (An overlay would be one call, but not for a user
// namespace.)
class container_root {
 public:
  container_root(std::string root, std::set<fs::path> own)
      : root_(std::move(root)), own_(std::move(own)) {}

  // `folder` is absolute; its place in the root exists and is empty.
  done fill(const fs::path& folder) {
    std::error_code problem;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, problem)) {
      TROUPE_TRY_VOID(add(entry));
    }
    return {};
  }

  done make_own(const fs::path& path, bool is_folder) {
    std::error_code problem;
    fs::create_directories(at(is_folder ? path : path.parent_path()), problem);
    return is_folder ? done() : touch(at(path));
  }

  [[nodiscard]] fs::path at(const fs::path& path) const { return root_ + path.string(); }

 private:
  [[nodiscard]] bool holds_own(const fs::path& folder) const {
    const std::string prefix = folder.string() + "/";
    const auto next = own_.lower_bound(fs::path(prefix));
    return next != own_.end() && next->string().starts_with(prefix);
  }

  done add(const fs::directory_entry& entry) {
    const fs::path& path = entry.path();
    if (path == root_ || own_.contains(path)) return {};
    std::error_code problem;
    if (entry.is_symlink(problem)) {
      fs::copy_symlink(path, at(path), problem);
      return {};
    }
    if (!entry.is_directory(problem)) {
      TROUPE_TRY_VOID(touch(at(path)));
      // What cannot be bound (another user's socket) the container does without.
      static_cast<void>(bind_path(path, at(path), false));
      return {};
    }
    fs::create_directory(at(path), problem);
    if (holds_own(path)) return fill(path);
    return bind_path(path, at(path), true);
  }

  const std::string root_;
  const std::set<fs::path> own_;
};

done enter_root(const container_start& start) {
  if (::mount("tmpfs", start.root.c_str(), "tmpfs", MS_NOSUID, "mode=0755") != 0) {
    return failed("a root for the container");
  }
  std::set<fs::path> own;
  std::vector<std::pair<const bound_file*, fs::path>> places;
  for (const bound_file& file : start.files) {
    std::error_code problem;
    fs::path place = fs::weakly_canonical(file.to, problem);  // /var/run is a link
    if (!place.has_filename()) place = place.parent_path();
    places.emplace_back(&file, place);
    own.insert(place);
  }
  container_root root(start.root, own);
  TROUPE_TRY_VOID(root.fill("/"));
  for (const auto& [file, place] : places) {
    std::error_code problem;
    if (!fs::exists(file->from, problem)) {
      errno = ENOENT;
      return failed(file->from);
    }
    TROUPE_TRY_VOID(root.make_own(place, fs::is_directory(file->from, problem)));
    TROUPE_TRY_VOID(bind_path(file->from, root.at(place), true));
    if (file->read_only) TROUPE_TRY_VOID(make_read_only(root.at(place)));
  }
  if (::chroot(start.root.c_str()) != 0) return failed("chroot");
  if (::chdir(start.folder.c_str()) != 0) return failed("working directory " + start.folder);
  return {};
}

done become(const container_start& start) {
  TROUPE_TRY_VOID(enter_namespaces());
  // After the namespace: taking on its privileges clears it.
  TROUPE_TRY_VOID(base::die_with_parent(start.parent));
  TROUPE_TRY_VOID(enter_root(start));
  std::vector<char*> words;
  for (const std::string& word : start.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::vector<char*> variables;
  for (const std::string& one : start.environment) {
    variables.push_back(const_cast<char*>(one.c_str()));
    // The program is looked for where the container would.
    if (one.starts_with("PATH=")) ::setenv("PATH", one.c_str() + 5, 1);
  }
  variables.push_back(nullptr);
  ::execvpe(words.front(), words.data(), variables.data());
  return failed("the program " + start.words.front());
}

}  // namespace

std::string format_container(const container_start& start) {
  json files = json::array();
  for (const bound_file& file : start.files) {
    files.push_back({{"from", file.from}, {"to", file.to}, {"read_only", file.read_only}});
  }
  return json({{"root", start.root},
               {"files", files},
               {"folder", start.folder},
               {"words", start.words},
               {"environment", start.environment},
               {"parent", start.parent}})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

base::result<container_start> parse_container(const std::string& text) {
  try {
    const json read = json::parse(text);
    container_start start{.root = read.at("root"),
                          .files = {},
                          .folder = read.at("folder"),
                          .words = read.at("words"),
                          .environment = read.at("environment"),
                          .parent = read.at("parent")};
    for (const json& file : read.at("files")) {
      start.files.push_back(
          {.from = file.at("from"), .to = file.at("to"), .read_only = file.at("read_only")});
    }
    if (!start.words.empty()) return start;
  } catch (const json::exception&) {  // NOLINT(bugprone-empty-catch): told below
  }
  return base::fail(error_code::invalid_argument, "lws",
                    "no container of troupe run: this command is not for people");
}

base::error become_container(const container_start& start) {
  auto ended = become(start);
  return ended.error();
}

}  // namespace troupe::lws
