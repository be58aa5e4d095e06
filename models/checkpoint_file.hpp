// A regular file, or one linked into the program, opened for reads at an offset: the only file
// access of models/.
//
// Opening never blocks (a FIFO or a device in a model folder is refused, not waited for); symbolic
// links are followed, since Hugging Face's cache is made of them. Reads are safe from many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "models/model_folder.hpp"

namespace troupe::models {

// pread(2)'s contract, bound to a descriptor: bytes read, 0 at the end, -1 with errno.
using read_at_function = std::function<std::int64_t(std::byte*, std::size_t, std::uint64_t)>;

// Fills `out` from `offset`, going on after interrupts and short reads.
// Errors: data_loss (`what` ends before the last byte, or the disk failed: offset and cause).
[[nodiscard]] base::result<void> read_fully(const read_at_function& read_at, std::uint64_t offset,
                                            std::span<std::byte> out, const std::string& what);

// By these a file is taken for the one whose content is known already.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;  // since the epoch of Unix
  friend bool operator==(const file_identity&, const file_identity&) = default;
};

class checkpoint_file {
 public:
  // Errors: not_found, permission_denied, resource_exhausted (descriptors), invalid_argument (not a
  // regular file), data_loss (the disk failed); each names the path.
  [[nodiscard]] static base::result<checkpoint_file> open(const std::filesystem::path& path);

  // `folder`/`name`, on disk or linked into the program. Errors: as above.
  [[nodiscard]] static base::result<checkpoint_file> open(const model_folder& folder,
                                                          std::string_view name);

  checkpoint_file(checkpoint_file&& other) noexcept;
  checkpoint_file& operator=(checkpoint_file&& other) noexcept;
  ~checkpoint_file();

  // Size when it was opened, in bytes.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  // As it is now; nullopt: linked into the program. Errors: data_loss.
  [[nodiscard]] base::result<std::optional<file_identity>> identity(const std::string& what) const;

  // Errors: as read_fully.
  [[nodiscard]] base::result<void> read(std::uint64_t offset, std::span<std::byte> out,
                                        const std::string& what) const;

 private:
  checkpoint_file(int descriptor, std::uint64_t bytes) : descriptor_(descriptor), bytes_(bytes) {}
  explicit checkpoint_file(std::span<const std::byte> linked)
      : linked_(linked), bytes_(linked.size()) {}
  int descriptor_ = -1;
  std::span<const std::byte> linked_;  // instead of a descriptor
  std::uint64_t bytes_ = 0;
};

// The whole of a small file. Errors: as open and read, and invalid_argument beyond `bytes_max`.
[[nodiscard]] base::result<std::string> read_text_file(const model_folder& folder,
                                                       std::string_view name,
                                                       std::uint64_t bytes_max);

}  // namespace troupe::models
