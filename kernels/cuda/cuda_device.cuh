// One GPU: what kernels::device asks for.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/staging.cuh"
#include "kernels/device.hpp"

namespace troupe::kernels::cuda {

class cuda_device final : public device {
 public:
  // Errors: failed_precondition (no such device, or one older than sm_80), internal.
  [[nodiscard]] static base::result<std::unique_ptr<cuda_device>> open(int ordinal);

  [[nodiscard]] std::string describe() const override;
  [[nodiscard]] instruction_path path() const noexcept override;
  [[nodiscard]] base::result<buffer> allocate(std::size_t bytes, std::string_view purpose) override;
  [[nodiscard]] base::result<device_memory> memory() const override;
  void upload(std::byte* to, std::size_t bytes,
              const std::function<void(std::span<std::byte>)>& fill) override {
    staging_.upload(to, bytes, fill);
  }
  [[nodiscard]] base::result<void> settle() override { return staging_.settle(); }
  [[nodiscard]] base::result<std::unique_ptr<queue>> make_queue() override;
  [[nodiscard]] std::unique_ptr<ops> make_ops() override;
  [[nodiscard]] base::result<std::string> group_library() override;
  [[nodiscard]] base::result<device_place> place() const override;
  [[nodiscard]] base::result<device_group_id> make_group_id() override;
  [[nodiscard]] base::result<std::unique_ptr<device_group>> make_group(
      queue& on, const device_group_options& options) override;
  [[nodiscard]] base::result<device_peaks> measure_peaks() override;

 private:
  explicit cuda_device(int ordinal) : ordinal_(ordinal), staging_(ordinal) {}

  const int ordinal_;
  cudaDeviceProp properties_{};
  staging staging_;
};

[[nodiscard]] std::unique_ptr<ops> make_cuda_ops();

}  // namespace troupe::kernels::cuda
