#include "kernels/buffer.hpp"

#include <sys/mman.h>

#include <string>
#include <utility>

namespace troupe::kernels {
namespace {
// From this size on huge pages pay: below it their rounding costs more than the page walks.
constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::size_t huge_page_from_bytes = 8 * huge_page_bytes;
}  // namespace

buffer::buffer(buffer&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

buffer& buffer::operator=(buffer&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

buffer::~buffer() {
  if (address_ != nullptr) munmap(address_, mapped_);
}

base::result<buffer> buffer::allocate(std::size_t bytes, std::string_view purpose) {
  buffer made;
  if (bytes == 0) return made;
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return base::fail(base::error_code::resource_exhausted, "kernels",
                      "cannot reserve " + std::to_string(bytes) + " bytes for " +
                          std::string(purpose) + "; lower the memory settings or free memory");
  }
  if (bytes >= huge_page_from_bytes) madvise(address, bytes, MADV_HUGEPAGE);
  made.address_ = static_cast<std::byte*>(address);
  made.bytes_ = bytes;
  made.mapped_ = bytes;
  return made;
}

tensor_view buffer::view(dtype type, std::int64_t rows, std::int64_t columns) const {
  TROUPE_CHECK(rows >= 0 && columns >= 0);
  TROUPE_CHECK(static_cast<std::size_t>(rows * columns) * size_of(type) <= bytes_);
  return {{device_kind::cpu, address_}, type, {rows, columns, 1}, columns};
}

}  // namespace troupe::kernels
