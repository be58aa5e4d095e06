#include "kernels/cuda_library.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <string>

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

}  // namespace

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
