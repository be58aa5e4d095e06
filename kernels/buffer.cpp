#include "kernels/buffer.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace troupe::kernels {
namespace {
constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

// A mapping that starts at a multiple of a huge page, so that its first one may be huge too; the
// system chooses no such start by itself. MAP_FAILED when there is no room.
void* map_aligned(std::size_t bytes) {
  const std::size_t slack = bytes >= huge_page_bytes ? huge_page_bytes : 0;
  void* const mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED || slack == 0) return mapped;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  auto* const begin = static_cast<std::byte*>(mapped);
  const std::size_t before =
      (huge_page_bytes - reinterpret_cast<std::uintptr_t>(begin) % huge_page_bytes) %
      huge_page_bytes;
  const std::size_t used = before + (bytes + page - 1) / page * page;
  if (before > 0) munmap(begin, before);
  if (used < bytes + slack) munmap(begin + used, bytes + slack - used);
  return begin + before;
}

}  // namespace

buffer::buffer(buffer&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_),
      release_(other.release_) {}

buffer& buffer::operator=(buffer&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  std::swap(release_, other.release_);
  return *this;
}

buffer::~buffer() {
  if (address_ != nullptr) release_(address_, bytes_);
}

buffer buffer::adopt(device_handle memory, std::size_t bytes, release_function release) noexcept {
  buffer made;
  made.address_ = memory.address;
  made.bytes_ = bytes;
  made.device_ = memory.device;
  made.release_ = release;
  return made;
}

base::result<buffer> buffer::allocate(std::size_t bytes, std::string_view purpose) {
  if (bytes == 0) return buffer();
  constexpr std::size_t addressable = std::numeric_limits<std::size_t>::max() / 2;
  void* const address = bytes < addressable ? map_aligned(bytes) : MAP_FAILED;
  if (address == MAP_FAILED) {
    return base::fail(base::error_code::resource_exhausted, "kernels",
                      "cannot reserve " + std::to_string(bytes) + " bytes for " +
                          std::string(purpose) + "; lower the memory settings or free memory");
  }
  // Decoding streams weights 4 % faster over huge pages than over those of 4 KiB (one thread, one
  // row by 1024 x 6144). Nothing is rounded up: the last part of a mapping stays in small pages.
  if (bytes >= huge_page_bytes) madvise(address, bytes, MADV_HUGEPAGE);
  return adopt({device_kind::cpu, static_cast<std::byte*>(address)}, bytes,
               [](std::byte* mapped, std::size_t size) noexcept { munmap(mapped, size); });
}

tensor_view buffer::view(dtype type, std::int64_t rows, std::int64_t columns) const {
  TROUPE_CHECK(rows >= 0 && columns >= 0);
  TROUPE_CHECK(static_cast<std::size_t>(rows * columns) * size_of(type) <= bytes_);
  return {{device_, address_}, type, {rows, columns, 1}, columns};
}

}  // namespace troupe::kernels
