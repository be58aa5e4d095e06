#include "kernels/cuda/cuda_device.cuh"

#include <sys/stat.h>

#include <array>
#include <cstdio>

#include "base/check.hpp"
#include "kernels/cuda/bench_timer.cuh"
#include "kernels/cuda/cuda_queue.cuh"
#include "kernels/cuda/nccl_group.cuh"
#include "kernels/cuda_library.hpp"
#include "kernels/matmul/matmul.cuh"

namespace troupe::kernels::cuda {
namespace {

constexpr double gib = 1024.0 * 1024.0 * 1024.0;

std::string in_gib(std::size_t bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f GiB", static_cast<double>(bytes) / gib);
  return text.data();
}

}  // namespace

base::result<std::unique_ptr<cuda_device>> cuda_device::open(int ordinal) {
  std::unique_ptr<cuda_device> made(new cuda_device(ordinal));
  TROUPE_TRY_VOID(checked(cudaSetDevice(ordinal), "choosing the device"));
  TROUPE_TRY_VOID(
      checked(cudaGetDeviceProperties(&made->properties_, ordinal), "asking for its properties"));
  if (made->properties_.major < 8) {
    return base::fail(base::error_code::failed_precondition, "cuda",
                      std::string(made->properties_.name) + " has compute capability " +
                          std::to_string(made->properties_.major) + "." +
                          std::to_string(made->properties_.minor) + "; 8.0 is the least");
  }
  TROUPE_TRY_VOID(checked(cudaFree(nullptr), "making a context"));
  return made;
}

std::string cuda_device::describe() const {
  return std::string(properties_.name) + ", sm_" + std::to_string(properties_.major) +
         std::to_string(properties_.minor) + ", " + in_gib(properties_.totalGlobalMem);
}

instruction_path cuda_device::path() const noexcept { return cuda_path(properties_.major); }

base::result<device_memory> cuda_device::memory() const {
  std::size_t free = 0;
  std::size_t total = 0;
  TROUPE_TRY_VOID(checked(cudaSetDevice(ordinal_), "choosing the device"));
  TROUPE_TRY_VOID(checked(cudaMemGetInfo(&free, &total), "asking for free memory"));
  return device_memory{.free_bytes = free, .total_bytes = total};
}

base::result<buffer> cuda_device::allocate(std::size_t bytes, std::string_view purpose) {
  if (bytes == 0) return buffer();
  TROUPE_TRY(now, memory());
  void* address = nullptr;
  // Asked first: a driver may otherwise spill to host memory or take long to say no.
  const cudaError_t code =
      bytes > now.free_bytes ? cudaErrorMemoryAllocation : cudaMalloc(&address, bytes);
  if (code == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // not sticky: the device goes on
    return base::fail(base::error_code::resource_exhausted, "cuda",
                      "the device has " + in_gib(now.free_bytes) + " free of " +
                          in_gib(now.total_bytes) + ", " + in_gib(bytes) + " are needed for " +
                          std::string(purpose) +
                          "; use more ranks, or lower --kv-cache-memory or --max-model-len");
  }
  TROUPE_TRY_VOID(checked(code, "reserving device memory"));
  buffer made = buffer::adopt({device_kind::cuda, static_cast<std::byte*>(address)}, bytes,
                              [](std::byte* memory, std::size_t) noexcept { cudaFree(memory); });
  TROUPE_TRY_VOID(checked(cudaMemset(address, 0, bytes), "clearing device memory"));
  // The legacy stream's memset must be over before another stream writes there.
  TROUPE_TRY_VOID(checked(cudaDeviceSynchronize(), "clearing device memory"));
  return made;
}

base::result<std::unique_ptr<queue>> cuda_device::make_queue() {
  TROUPE_TRY(made, cuda_queue::make(ordinal_));
  return std::unique_ptr<queue>(std::move(made));
}

std::unique_ptr<ops> cuda_device::make_ops() { return make_cuda_ops(); }

base::result<std::string> cuda_device::group_library() { return nccl_version(); }

// A boot of the machine, and the network name space in which its loopback is one: containers that
// share neither cannot meet as ranks of one host do.
base::result<device_place> cuda_device::place() const {
  std::array<char, 64> boot{};
  std::array<char, 32> address{};
  struct stat network {};
  std::FILE* const file = std::fopen("/proc/sys/kernel/random/boot_id", "r");
  const bool read = file != nullptr && std::fscanf(file, "%63s", boot.data()) == 1;
  if (file != nullptr) std::fclose(file);
  if (!read || ::stat("/proc/self/ns/net", &network) != 0) {
    return base::fail(base::error_code::internal, "cuda", "cannot tell which host this is");
  }
  TROUPE_TRY_VOID(checked(cudaDeviceGetPCIBusId(address.data(), address.size(), ordinal_),
                          "asking where the device is"));
  return device_place{.host = std::string(boot.data()) + "/" + std::to_string(network.st_ino),
                      .address = address.data()};
}

base::result<device_group_id> cuda_device::make_group_id() { return make_nccl_id(); }

base::result<std::unique_ptr<device_group>> cuda_device::make_group(
    queue& on, const device_group_options& options) {
  TROUPE_TRY_VOID(checked(cudaSetDevice(ordinal_), "choosing the device"));
  auto* const here = dynamic_cast<cuda_queue*>(&on);
  TROUPE_CHECK(here != nullptr);
  return make_nccl_group(*here, options);
}

base::result<device_peaks> cuda_device::measure_peaks() {
  constexpr std::int64_t rows = 8192;
  constexpr std::int64_t inputs = 4096;
  constexpr std::int64_t outputs = 8192;
  TROUPE_TRY(queue, cuda_queue::make(ordinal_));
  device_peaks peaks{.copy_gbytes_per_s = copy_gbytes_per_s(queue->stream())};
  TROUPE_TRY(input, allocate(rows * inputs * 2, "a measurement"));
  TROUPE_TRY(weights, allocate(outputs * inputs * 2, "a measurement"));
  TROUPE_TRY(output, allocate(rows * outputs * 4, "a measurement"));
  // Not zeros, on which the chip clocks higher: the bytes 0x3E3E are a bfloat16 of about 0.186.
  cudaMemset(input.data(), 0x3E, input.size());
  cudaMemset(weights.data(), 0x3E, weights.size());
  cudaDeviceSynchronize();
  const matmul_weights shape{.data = weights.data(),
                             .outputs = outputs,
                             .inputs = inputs,
                             .padded_inputs = inputs,
                             .runs = 1,
                             .run_begin = {0, inputs},
                             .padded_run_begin = {0, inputs}};
  matmul_launch product{.input = input.data(),
                        .input_stride = inputs,
                        .rows = rows,
                        .weights = &shape,
                        .output = reinterpret_cast<float*>(output.data()),
                        .output_stride = outputs,
                        .workspace = {}};
  const auto work = queue->workspace(scratch::matmul, matmul_workspace_bytes(product));
  product.workspace = {work.data(), work.size()};
  const double us = median_us(queue->stream(), 7, 4, [&](int) {
    queue->note(matmul(queue->stream(), product), "measuring a product");
  });
  TROUPE_TRY_VOID(queue->synchronize());
  peaks.matmul_gflop_per_s = 2.0 * rows * inputs * outputs / us * 1e-3;
  return peaks;
}

}  // namespace troupe::kernels::cuda
