// A device beside the CPU: memory, a queue for each rank, ops on it.
//
// The CPU needs none of this (a null device stands for it). Another device comes from a shared
// object that is opened when asked for (kernels/cuda_library.hpp), so that a machine without it
// runs the same binary. Any thread; what it makes belongs to one thread each and is destroyed
// before it.
//
//   TROUPE_TRY(device, kernels::open_cuda({.ordinal = 0}));
//   TROUPE_TRY(memory, device->allocate(bytes, "the KV cache"));
//   TROUPE_TRY(queue, device->make_queue());
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "kernels/buffer.hpp"
#include "kernels/device_group.hpp"
#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"

namespace troupe::kernels {

// Whose device_interface both sides were compiled against; counts up with any change of a header
// that they share.
inline constexpr int device_interface_version = 2;

struct device_memory {
  std::uint64_t free_bytes = 0;
  std::uint64_t total_bytes = 0;
};

// What a device can do at best, measured when asked; see kernels/machine_peak.hpp.
struct device_peaks {
  double copy_gbytes_per_s = 0.0;   // read plus written, by the device's own copy
  double matmul_gflop_per_s = 0.0;  // one product, 8192 x 4096 x 8192, by this backend's kernel
};

// Equal for two processes exactly where they compute on one device.
struct device_place {
  std::string host;     // the machine, also seen from its containers
  std::string address;  // on the host's bus
};

class device {
 public:
  device() = default;
  device(const device&) = delete;
  device& operator=(const device&) = delete;
  virtual ~device() = default;

  // E.g. "NVIDIA H200, sm_90, 139.8 GiB".
  [[nodiscard]] virtual std::string describe() const = 0;
  // What its matrix products' bits belong to.
  [[nodiscard]] virtual instruction_path path() const noexcept = 0;

  // Zeroed memory. Errors: resource_exhausted, naming the size, `purpose` and what is free.
  [[nodiscard]] virtual base::result<buffer> allocate(std::size_t bytes,
                                                      std::string_view purpose) = 0;
  [[nodiscard]] virtual base::result<device_memory> memory() const = 0;

  // Fills `bytes` of pinned staging memory by `fill`, then copies them to `to` on the device. Any
  // thread, several at once. Failures show in settle().
  virtual void upload(std::byte* to, std::size_t bytes,
                      const std::function<void(std::span<std::byte>)>& fill) = 0;
  // Returns when all uploads are done. Errors: internal.
  [[nodiscard]] virtual base::result<void> settle() = 0;

  [[nodiscard]] virtual base::result<std::unique_ptr<queue>> make_queue() = 0;
  // One ops object serves one queue at a time.
  [[nodiscard]] virtual std::unique_ptr<ops> make_ops() = 0;

  // What joins devices without the host, e.g. "NCCL 2.28.9". Errors: failed_precondition (not
  // built in, not found, too old).
  [[nodiscard]] virtual base::result<std::string> group_library() = 0;
  [[nodiscard]] virtual base::result<device_place> place() const = 0;
  [[nodiscard]] virtual base::result<device_group_id> make_group_id() = 0;
  // Blocks until every rank of the group has called it. Lifetime: before `on` and the device.
  // Errors: failed_precondition (as group_library), aborted, deadline_exceeded, unavailable.
  [[nodiscard]] virtual base::result<std::unique_ptr<device_group>> make_group(
      queue& on, const device_group_options& options) = 0;

  // Cost: about a second and 4 GiB of the device's memory. Errors: internal, resource_exhausted.
  [[nodiscard]] virtual base::result<device_peaks> measure_peaks() = 0;
};

// Memory of `on`, or of the CPU where it is null. Errors: resource_exhausted.
[[nodiscard]] inline base::result<buffer> allocate_on(device* on, std::size_t bytes,
                                                      std::string_view purpose) {
  return on == nullptr ? buffer::allocate(bytes, purpose) : on->allocate(bytes, purpose);
}

}  // namespace troupe::kernels
