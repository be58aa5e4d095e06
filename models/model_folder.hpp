// Where the files of a model are: a folder on disk, or files linked into the program.
//
// A plain value that opens nothing; the readers of models/ and models/text take it, so a path will
// do wherever it is asked for. A linked file is read by the same code and bounds as one on disk.
//
//   TROUPE_TRY(config, models::read_config("/models/Qwen3-0.6B"));
//   TROUPE_TRY(tokens, text::tokenizer::open(models::demo_folder()));
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

namespace troupe::models {

// Lifetime: the program's, as what the linker placed has.
struct linked_file {
  std::string_view name;
  std::span<const std::byte> bytes;

  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

class model_folder {
 public:
  // Not explicit: a path is a folder on disk.
  template <std::convertible_to<std::filesystem::path> Path>
  model_folder(Path&& path)  // NOLINT(google-explicit-constructor,bugprone-forwarding-*)
      : path_(std::forward<Path>(path)) {}

  // `name` stands for the folder in messages; `files` is borrowed.
  model_folder(std::string_view name, std::span<const linked_file> files)
      : path_(name), files_(files), linked_(true) {}

  [[nodiscard]] bool is_linked() const noexcept { return linked_; }

  // The folder on disk; of a linked one its name, which no system call knows.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

  // Null where it is not linked: on disk, or missing.
  [[nodiscard]] const linked_file* find_linked(std::string_view name) const noexcept {
    const auto it = std::ranges::find(files_, name, &linked_file::name);
    return it == files_.end() ? nullptr : &*it;
  }

  // Whether there is such a file.
  [[nodiscard]] bool contains(std::string_view name) const {
    std::error_code ignored;
    return linked_ ? find_linked(name) != nullptr : std::filesystem::exists(path_ / name, ignored);
  }

  [[nodiscard]] bool is_there() const {
    std::error_code ignored;
    return linked_ || std::filesystem::is_directory(path_, ignored);
  }

 private:
  std::filesystem::path path_;
  std::span<const linked_file> files_;
  bool linked_ = false;
};

}  // namespace troupe::models
