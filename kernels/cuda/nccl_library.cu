#include "kernels/cuda/nccl_library.cuh"

#include <dlfcn.h>

#include <cstdlib>

namespace troupe::kernels::cuda {
namespace {

constexpr const char* usual_name = "libnccl.so.2";

tl::unexpected<base::error> refuse(const std::string& message) {
  return base::fail(base::error_code::failed_precondition, "cuda", message);
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool find_all(void* library, nccl_library& nccl) {
  return find(library, "ncclGetVersion", nccl.get_version) &&
         find(library, "ncclGetUniqueId", nccl.get_unique_id) &&
         find(library, "ncclGetErrorString", nccl.error_string) &&
         find(library, "ncclGetLastError", nccl.last_error) &&
         find(library, "ncclCommInitRankConfig", nccl.init_rank) &&
         find(library, "ncclCommGetAsyncError", nccl.async_error) &&
         find(library, "ncclCommAbort", nccl.abort) &&
         find(library, "ncclGroupStart", nccl.group_start) &&
         find(library, "ncclGroupEnd", nccl.group_end) && find(library, "ncclSend", nccl.send) &&
         find(library, "ncclRecv", nccl.receive) &&
         find(library, "ncclAllGather", nccl.all_gather) &&
         find(library, "ncclBroadcast", nccl.broadcast);
}

}  // namespace

std::string nccl_version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

base::result<nccl_library> load_nccl() {
  const char* const named = std::getenv("TROUPE_NCCL_LIBRARY");
  const std::string name = named != nullptr && *named != '\0' ? named : usual_name;
  void* const opened = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (opened == nullptr) {
    return refuse("no NCCL: " + std::string(dlerror()) +
                  " (install libnccl2, or set TROUPE_NCCL_LIBRARY to the file)");
  }
  nccl_library nccl;
  const bool complete = find_all(opened, nccl);
  if (nccl.get_version != nullptr) static_cast<void>(nccl.get_version(&nccl.version));
  if (complete && nccl.version >= nccl_version_min) return nccl;
  const std::string found =
      nccl.version == 0 ? "no NCCL" : "NCCL " + nccl_version_text(nccl.version);
  return refuse(name + " is " + found + "; at least " + nccl_version_text(nccl_version_min) +
                " is needed");
}

}  // namespace troupe::kernels::cuda
