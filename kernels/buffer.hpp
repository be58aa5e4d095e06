// Owned memory of one device, 64-byte aligned, zero at first.
//
// On the CPU it is an anonymous mapping: a page costs memory only once it is written, so a pool may
// be reserved whole. Large buffers ask for huge pages where the system allows them. On another
// device it is what that device handed out (kernels/device.hpp).
#pragma once

#include <cstddef>
#include <span>

#include "base/error.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

class buffer {
 public:
  buffer() = default;
  buffer(buffer&& other) noexcept;
  buffer& operator=(buffer&& other) noexcept;
  ~buffer();

  // Units: bytes. Errors: resource_exhausted, naming the size and `purpose`.
  [[nodiscard]] static base::result<buffer> allocate(std::size_t bytes, std::string_view purpose);

  // Takes over memory of a device. `release` is called once with the address and the size.
  using release_function = void (*)(std::byte* address, std::size_t bytes) noexcept;
  [[nodiscard]] static buffer adopt(device_handle memory, std::size_t bytes,
                                    release_function release) noexcept;

  [[nodiscard]] device_kind device() const noexcept { return device_; }

  [[nodiscard]] std::byte* data() const noexcept { return address_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }
  template <class T>
  [[nodiscard]] std::span<T> as() const noexcept {
    TROUPE_CHECK(device_ == device_kind::cpu);
    return {reinterpret_cast<T*>(address_), bytes_ / sizeof(T)};
  }
  // A dense view of the whole from its start. Lifetime: the buffer's.
  [[nodiscard]] tensor_view view(dtype type, std::int64_t rows, std::int64_t columns) const;

 private:
  std::byte* address_ = nullptr;
  std::size_t bytes_ = 0;
  device_kind device_ = device_kind::cpu;
  release_function release_ = nullptr;
};

}  // namespace troupe::kernels
