// The shared object's entries; see kernels/cuda_library.hpp.
#include <cstdio>
#include <string>

#include "kernels/cuda/cuda_device.cuh"

namespace {

using troupe::kernels::device;
using troupe::kernels::device_interface_version;

void say(char* message, std::size_t bytes, const std::string& text) {
  std::snprintf(message, bytes, "%s", text.c_str());
}

bool same_interface(int version, char* message, std::size_t bytes) {
  if (version == device_interface_version) return true;
  say(message, bytes,
      "libtroupe_cuda.so has device interface " + std::to_string(device_interface_version) +
          ", this program " + std::to_string(version) + ": build both together");
  return false;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int troupe_cuda_probe(int version, int* major,
                                                                        char* message,
                                                                        std::size_t bytes) {
  if (!same_interface(version, message, bytes)) return -1;
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  *major = 0;
  if (code == cudaSuccess && count > 0) {
    code = cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, 0);
  }
  if (code == cudaSuccess && count > 0) return count;
  say(message, bytes, code == cudaSuccess ? "none is visible" : cudaGetErrorString(code));
  return -1;
}

extern "C" __attribute__((visibility("default"))) device* troupe_cuda_open(int version, int ordinal,
                                                                           char* message,
                                                                           std::size_t bytes) {
  int major = 0;
  if (troupe_cuda_probe(version, &major, message, bytes) < 0) return nullptr;
  auto made = troupe::kernels::cuda::cuda_device::open(ordinal);
  if (made) return made->release();
  say(message, bytes, made.error().message);
  return nullptr;
}
