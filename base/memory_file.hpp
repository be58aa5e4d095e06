// Anonymous files in memory (memfd), readable by this user only, of a size that cannot change: what
// a process hands to its children as a descriptor.
//
//   TROUPE_TRY(page, base::make_memory_file({.name = "vitals", .bytes = 4096}));
//   TROUPE_TRY(view, base::memory_map::of(page, 4096, base::memory_access::read));
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

struct memory_file_options {
  std::string name;  // for /proc/<pid>/maps
  std::size_t bytes = 0;
};

// Zeroed, mode 0600, sealed against growing and shrinking, so that no holder can make another
// one's mapping fault. Errors: resource_exhausted, unavailable.
[[nodiscard]] result<fd> make_memory_file(const memory_file_options& options);

enum class memory_access : std::uint8_t { read, read_write };

// A shared mapping of such a file; unmapped when destroyed.
class memory_map {
 public:
  // Errors: invalid_argument (the file is shorter than `bytes`, or can still shrink), unavailable.
  [[nodiscard]] static result<memory_map> of(const fd& file, std::size_t bytes,
                                             memory_access access);
  memory_map(memory_map&& other) noexcept
      : at_(std::exchange(other.at_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  memory_map& operator=(memory_map&& other) noexcept;
  ~memory_map() { reset(); }

  [[nodiscard]] void* data() const noexcept { return at_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  memory_map(void* at, std::size_t bytes) noexcept : at_(at), bytes_(bytes) {}
  void reset() noexcept;
  void* at_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace troupe::base
