// A regular file opened for reads at an offset: the only file access of models/.
//
// Opening never blocks (a FIFO or a device in a model folder is refused, not waited for); symbolic
// links are followed, since Hugging Face's cache is made of them. Reads are safe from many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "base/error.hpp"

namespace troupe::models {

// pread(2)'s contract, bound to a descriptor: bytes read, 0 at the end, -1 with errno.
using read_at_function = std::function<std::int64_t(std::byte*, std::size_t, std::uint64_t)>;

// Fills `out` from `offset`, going on after interrupts and short reads.
// Errors: data_loss (`what` ends before the last byte, or the disk failed: offset and cause).
[[nodiscard]] base::result<void> read_fully(const read_at_function& read_at, std::uint64_t offset,
                                            std::span<std::byte> out, const std::string& what);

class checkpoint_file {
 public:
  // Errors: not_found, permission_denied, resource_exhausted (descriptors), invalid_argument (not a
  // regular file), data_loss (the disk failed); each names the path.
  [[nodiscard]] static base::result<checkpoint_file> open(const std::filesystem::path& path);

  checkpoint_file(checkpoint_file&& other) noexcept;
  checkpoint_file& operator=(checkpoint_file&& other) noexcept;
  ~checkpoint_file();

  // Size when it was opened, in bytes.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  // Errors: as read_fully.
  [[nodiscard]] base::result<void> read(std::uint64_t offset, std::span<std::byte> out,
                                        const std::string& what) const;

 private:
  checkpoint_file(int descriptor, std::uint64_t bytes) : descriptor_(descriptor), bytes_(bytes) {}
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
};

// The whole of a small file. Errors: as open and read, and invalid_argument beyond `bytes_max`.
[[nodiscard]] base::result<std::string> read_text_file(const std::filesystem::path& path,
                                                       std::uint64_t bytes_max);

}  // namespace troupe::models
