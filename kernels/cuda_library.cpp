#include "kernels/cuda_library.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <string>

#include "base/fd.hpp"
#include "base/process.hpp"

namespace troupe::kernels {
namespace {

constexpr std::size_t message_bytes_max = 512;
constexpr std::size_t path_bytes_max = 4096;
constexpr const char* library_name = "libtroupe_cuda.so";

base::result<std::string> program_folder() {
  std::string path(path_bytes_max, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0 || static_cast<std::size_t>(length) == path.size()) {
    return base::fail(base::error_code::internal, "kernels", "cannot tell where this program is");
  }
  path.resize(static_cast<std::size_t>(length));
  return path.substr(0, path.rfind('/') + 1);
}

// Never closed: objects made by the library live as long as the process may.
base::result<void*> entry(const char* name) {
  TROUPE_TRY(folder, program_folder());
  std::string tried;
  for (const std::string& path : {folder + library_name, folder + "../lib/" + library_name}) {
    if (::access(path.c_str(), R_OK) != 0) continue;
    void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      return base::fail(base::error_code::failed_precondition, "kernels",
                        "cannot load the CUDA backend: " + std::string(::dlerror()));
    }
    if (void* const found = ::dlsym(library, name)) return found;
    return base::fail(base::error_code::failed_precondition, "kernels",
                      path + " is of another build: it has no " + name);
  }
  return base::fail(base::error_code::not_found, "kernels",
                    "the CUDA backend is not built: no " + std::string(library_name) +
                        " beside the program (scripts/build cuda makes it)");
}

// What the child of probe_cuda_apart() writes; below PIPE_BUF, so in one piece.
struct probe_answer {
  bool found = false;
  cuda_probe probe;
  base::error_code code{};
  std::array<char, message_bytes_max> message{};
};
static_assert(std::is_trivially_copyable_v<probe_answer> && sizeof(probe_answer) <= 4096);

[[noreturn]] void answer_and_end(int to, pid_t parent) {
  if (!base::die_with_parent(parent)) ::_exit(1);
  probe_answer answer;
  if (const auto probe = probe_cuda()) {
    answer.found = true;
    answer.probe = *probe;
  } else {
    answer.code = probe.error().code;
    const std::string& message = probe.error().message;
    std::memcpy(answer.message.data(), message.data(),
                std::min(message.size(), answer.message.size() - 1));
  }
  const ssize_t written = ::write(to, &answer, sizeof(answer));
  ::_exit(written == static_cast<ssize_t>(sizeof(answer)) ? 0 : 1);
}

// Of the child's end of the pipe; false: it ended, or time ran out, without an answer.
bool read_answer(int from, probe_answer& answer) {
  pollfd ready{.fd = from, .events = POLLIN, .revents = 0};
  const auto patience_ms = std::chrono::milliseconds(probe_patience).count();
  int polled = 0;
  do {
    polled = ::poll(&ready, 1, static_cast<int>(patience_ms));
  } while (polled < 0 && errno == EINTR);
  return polled == 1 && ::read(from, &answer, sizeof(answer)) == ssize_t{sizeof(answer)};
}

}  // namespace

base::result<cuda_probe> probe_cuda_apart() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return base::fail(base::error_code::resource_exhausted, "kernels", "no pipe to look for CUDA");
  }
  const base::fd from(ends[0]);
  base::fd to(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) {
    return base::fail(base::error_code::resource_exhausted, "kernels",
                      "no process to look for CUDA");
  }
  if (child == 0) answer_and_end(to.get(), parent);
  to.reset();
  probe_answer answer;
  const bool answered = read_answer(from.get(), answer);
  if (!answered) ::kill(child, SIGKILL);
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!answered) {
    return base::fail(base::error_code::unavailable, "kernels",
                      "no CUDA device: the driver did not answer");
  }
  if (!answer.found) return base::fail(answer.code, "kernels", answer.message.data());
  return answer.probe;
}

base::result<std::unique_ptr<device>> open_cuda(const cuda_options& options) {
  TROUPE_TRY(address, entry("troupe_cuda_open"));
  const auto open = reinterpret_cast<cuda_open_function>(address);
  std::array<char, message_bytes_max> message{};
  std::unique_ptr<device> made(
      open(device_interface_version, options.ordinal, message.data(), message.size()));
  if (made == nullptr) {
    return base::fail(base::error_code::failed_precondition, "kernels",
                      std::string("no CUDA device: ") + message.data());
  }
  return made;
}

base::result<cuda_probe> probe_cuda() {
  TROUPE_TRY(address, entry("troupe_cuda_probe"));
  const auto probe = reinterpret_cast<cuda_probe_function>(address);
  std::array<char, message_bytes_max> message{};
  int major = 0;
  const int devices = probe(device_interface_version, &major, message.data(), message.size());
  if (devices <= 0) {
    return base::fail(base::error_code::failed_precondition, "kernels",
                      std::string("no CUDA device: ") + message.data());
  }
  return cuda_probe{.devices = devices, .path = cuda_path(major)};
}

}  // namespace troupe::kernels
