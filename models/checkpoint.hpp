// A Hugging Face folder's safetensors: what is there, and bounded reads of slices.
//
// One file (model.safetensors) or many (model.safetensors.index.json), on disk or linked. Headers
// are hostile input: every offset, shape and name is checked when the checkpoint is opened, so that
// a later read can fail only because the file changed or the disk did. Slices are read with pread
// into the caller's staging buffer, not through a mapping: a file truncated under us is then an
// error that names the tensor instead of a SIGBUS, and no page of it counts towards the process. A
// checkpoint is immutable after open() and may be read by many threads at once.
//
//   TROUPE_TRY(weights, models::checkpoint::open(folder));
//   TROUPE_TRY(tensor, weights.find("model.norm.weight"));
//   TROUPE_TRY_VOID(weights.read(*tensor, 0, bytes));
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/checkpoint_file.hpp"
#include "models/model_folder.hpp"

namespace troupe::models {

// Safetensors names of element types; `other` is known to the format but not to this build.
enum class stored_dtype : std::uint8_t { float32, float16, bfloat16, float8_e4m3, other };
[[nodiscard]] std::size_t size_of(stored_dtype dtype) noexcept;
[[nodiscard]] std::string_view to_string(stored_dtype dtype) noexcept;

struct tensor_info {
  std::string name;
  stored_dtype dtype = stored_dtype::other;
  std::vector<std::int64_t> shape;  // 0 to 4 dimensions
  std::uint32_t file = 0;           // index into files()
  std::uint64_t offset = 0;         // bytes from the start of the file
  std::uint64_t bytes = 0;
};

struct checkpoint_limits {
  static constexpr std::uint64_t header_bytes_max = 16U << 20;  // the format's own cap is 100 MB
  static constexpr std::size_t tensors_max = 100'000;           // over all files
  static constexpr std::size_t files_max = 10'000;
  static constexpr std::size_t name_bytes_max = 512;
  static constexpr std::size_t index_bytes_max = 64U << 20;
};

class checkpoint {
 public:
  // Errors: not_found (folder or a file of the index), invalid_argument (malformed header or index:
  // file, tensor and what is wrong), data_loss (a file shorter than its header says).
  [[nodiscard]] static base::result<checkpoint> open(const model_folder& folder);

  // No files: such tensors with pseudo-random contents, the same for the same name and shape
  // wherever they are cut. `tensors`: `file`, `offset` and `bytes` are not looked at.
  [[nodiscard]] static checkpoint random(std::vector<tensor_info> tensors);

  checkpoint(checkpoint&&) noexcept;
  checkpoint& operator=(checkpoint&&) noexcept;
  ~checkpoint();

  // Errors: not_found, naming the tensor and the nearest name there is.
  [[nodiscard]] base::result<const tensor_info*> find(std::string_view name) const;
  [[nodiscard]] bool contains(std::string_view name) const noexcept;
  [[nodiscard]] std::span<const tensor_info> tensors() const noexcept;  // sorted by name
  [[nodiscard]] std::span<const std::filesystem::path> files() const noexcept;

  // Of files(), as they are now; empty: linked into the program. Errors: data_loss.
  [[nodiscard]] base::result<std::vector<file_identity>> identities() const;

  // Fills `out` from byte `offset` of the tensor. Errors: out_of_range, data_loss (file truncated
  // or unreadable: names file and tensor).
  [[nodiscard]] base::result<void> read(const tensor_info& tensor, std::uint64_t offset,
                                        std::span<std::byte> out) const;

 private:
  struct state;
  explicit checkpoint(std::unique_ptr<state> opened);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::models
