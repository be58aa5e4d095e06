// Opens the CUDA backend: a shared object beside the program, so that the program itself needs no
// CUDA and a machine without a GPU says in one line why it computes on the CPU.
//
//   auto device = kernels::open_cuda({.ordinal = 0});
//   if (!device) log.info(device.error().message);   // the CPU then
#pragma once

#include <chrono>
#include <memory>

#include "base/error.hpp"
#include "kernels/device.hpp"

namespace troupe::kernels {

struct cuda_options {
  int ordinal = 0;  // among the devices that CUDA_VISIBLE_DEVICES leaves
};

// Errors: not_found (no shared object beside the program), failed_precondition (one of another
// build, no driver, no such device, or one older than sm_80), internal.
[[nodiscard]] base::result<std::unique_ptr<device>> open_cuda(const cuda_options& options);

// Of a device of compute capability `major`.x, 8 or above.
[[nodiscard]] constexpr instruction_path cuda_path(int major) noexcept {
  if (major == 8) return instruction_path::cuda_sm80;
  return major == 9 ? instruction_path::cuda_sm90 : instruction_path::cuda_sm100;
}

struct cuda_probe {
  int devices = 0;
  instruction_path path = instruction_path::cuda_sm90;  // of the first; a gang's devices are alike
};

// What there is, without a context on it. Errors: those of open_cuda.
[[nodiscard]] base::result<cuda_probe> probe_cuda();

// The same, looked up by a child process, for one that does not compute itself: the driver's
// threads take signals for the whole process, and what it maps stays. Called while there is one
// thread. Errors: as well, unavailable (the child did not answer within probe_patience, or
// crashed).
inline constexpr std::chrono::seconds probe_patience{60};
[[nodiscard]] base::result<cuda_probe> probe_cuda_apart();

// The shared object's two entries, `troupe_cuda_open` and `troupe_cuda_probe`. A null device or a
// negative count: `message` says why.
using cuda_open_function = device* (*)(int interface_version, int ordinal, char* message,
                                       std::size_t message_bytes);
using cuda_probe_function = int (*)(int interface_version, int* compute_major, char* message,
                                    std::size_t message_bytes);

}  // namespace troupe::kernels
