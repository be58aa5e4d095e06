// A device whose memory is the host's: shows what is laid out on one without one.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "kernels/device.hpp"

namespace troupe::kernels {

class host_device final : public device {
 public:
  [[nodiscard]] std::string describe() const override { return "host memory"; }
  [[nodiscard]] instruction_path path() const noexcept override {
    return instruction_path::cuda_sm90;
  }
  [[nodiscard]] base::result<buffer> allocate(std::size_t bytes, std::string_view) override {
    auto* const memory = static_cast<std::byte*>(std::calloc(std::max<std::size_t>(bytes, 1), 1));
    return buffer::adopt({device_kind::cuda, memory}, bytes,
                         [](std::byte* address, std::size_t) noexcept { std::free(address); });
  }
  [[nodiscard]] base::result<device_memory> memory() const override { return device_memory{}; }
  void upload(std::byte* to, std::size_t bytes,
              const std::function<void(std::span<std::byte>)>& fill) override {
    fill({to, bytes});
  }
  [[nodiscard]] base::result<void> settle() override { return {}; }
  [[nodiscard]] base::result<std::unique_ptr<queue>> make_queue() override { return none(); }
  [[nodiscard]] std::unique_ptr<ops> make_ops() override { return nullptr; }
  [[nodiscard]] base::result<std::string> group_library() override { return none(); }
  [[nodiscard]] base::result<device_place> place() const override { return none(); }
  [[nodiscard]] base::result<device_group_id> make_group_id() override { return none(); }
  [[nodiscard]] base::result<std::unique_ptr<device_group>> make_group(
      queue&, const device_group_options&) override {
    return none();
  }
  [[nodiscard]] base::result<device_peaks> measure_peaks() override { return none(); }

 private:
  static tl::unexpected<base::error> none() {
    return base::fail(base::error_code::unimplemented, "tests", "memory only");
  }
};

}  // namespace troupe::kernels
