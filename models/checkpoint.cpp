#include "models/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "models/checkpoint_file.hpp"
#include "models/checkpoint_index.hpp"
#include "models/checkpoint_names.hpp"
#include "models/json_bounds.hpp"
#include "models/random_weights.hpp"
#include "models/safetensors.hpp"

namespace troupe::models {

struct checkpoint::state {
  std::vector<std::filesystem::path> paths;
  std::vector<checkpoint_file> files;  // parallel to paths
  std::vector<tensor_info> tensors;    // by name
  bool random = false;
};

namespace {

constexpr std::string_view origin = "models";
constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

struct opened_file {
  checkpoint_file file;
  std::vector<tensor_info> tensors;
};

base::result<opened_file> open_safetensors(const model_folder& folder, std::string_view file_name,
                                           std::size_t tensors_max) {
  const std::string name = (folder / file_name).string();
  TROUPE_TRY(file, checkpoint_file::open(folder, file_name));
  std::array<std::byte, safetensors_prefix_bytes> prefix{};
  TROUPE_TRY_VOID(file.read(0, prefix, name));
  TROUPE_TRY(header_bytes, safetensors_header_bytes(prefix, name));
  const std::uint64_t data_offset = safetensors_prefix_bytes + header_bytes;
  if (data_offset > file.bytes()) {
    return base::fail(base::error_code::data_loss, origin,
                      fmt::format("{}: {} bytes, its header alone needs {}: it is cut off, fetch "
                                  "it again",
                                  name, file.bytes(), data_offset));
  }
  std::string json(static_cast<std::size_t>(header_bytes), '\0');
  TROUPE_TRY_VOID(
      file.read(safetensors_prefix_bytes, std::as_writable_bytes(std::span(json)), name));
  TROUPE_TRY(tensors, parse_safetensors({.json = json,
                                         .data_bytes = file.bytes() - data_offset,
                                         .tensors_max = tensors_max,
                                         .data_offset = data_offset},
                                        name));
  return opened_file{std::move(file), std::move(tensors)};
}

// The files to open, single or sharded, and the index's claims for the latter.
struct layout {
  std::vector<std::string> names;
  checkpoint_index index;
  std::filesystem::path index_path;  // empty: a single file
};

base::result<layout> find_layout(const model_folder& folder) {
  // Transformers looks for the single file first.
  if (folder.contains(single_name)) return layout{{single_name}, {}, {}};
  const auto index_path = folder / index_name;
  if (!folder.contains(index_name)) {
    if (!folder.is_there()) {
      return base::fail(base::error_code::not_found, origin,
                        fmt::format("{}: no such folder", folder.path().string()));
    }
    const bool pickled =
        folder.contains("pytorch_model.bin") || folder.contains("pytorch_model.bin.index.json");
    return base::fail(
        base::error_code::not_found, origin,
        fmt::format("{}: neither {} nor {}{}", folder.path().string(), single_name, index_name,
                    pickled ? ": pytorch_model.bin is not read, since it can hold "
                              "code: convert it to safetensors"
                            : ""));
  }
  TROUPE_TRY(text, read_text_file(folder, index_name, checkpoint_limits::index_bytes_max));
  TROUPE_TRY(index, parse_checkpoint_index(text, index_path.string()));
  layout out{{}, std::move(index), index_path};
  out.names.assign(out.index.files.begin(), out.index.files.end());
  return out;
}

base::result<void> check_unique(std::span<const tensor_info> sorted,
                                std::span<const std::filesystem::path> paths) {
  const auto same = [](const tensor_info& a, const tensor_info& b) { return a.name == b.name; };
  const auto it = std::ranges::adjacent_find(sorted, same);
  if (it == sorted.end()) return {};
  return base::fail(base::error_code::invalid_argument, origin,
                    fmt::format("tensor {} is in two files: {} and {}", in_quotes(it->name),
                                paths[it->file].string(), paths[std::next(it)->file].string()));
}

}  // namespace

std::size_t size_of(stored_dtype dtype) noexcept {
  switch (dtype) {
    case stored_dtype::float32:
      return 4;
    case stored_dtype::float16:
    case stored_dtype::bfloat16:
      return 2;
    case stored_dtype::float8_e4m3:
      return 1;
    case stored_dtype::other:
      break;
  }
  return 0;
}

std::string_view to_string(stored_dtype dtype) noexcept {
  switch (dtype) {
    case stored_dtype::float32:
      return "float32";
    case stored_dtype::float16:
      return "float16";
    case stored_dtype::bfloat16:
      return "bfloat16";
    case stored_dtype::float8_e4m3:
      return "float8_e4m3";
    case stored_dtype::other:
      break;
  }
  return "other";
}

checkpoint::checkpoint(std::unique_ptr<state> opened) : state_(std::move(opened)) {}
checkpoint::checkpoint(checkpoint&&) noexcept = default;
checkpoint& checkpoint::operator=(checkpoint&&) noexcept = default;
checkpoint::~checkpoint() = default;

base::result<checkpoint> checkpoint::open(const model_folder& folder) {
  TROUPE_TRY(found, find_layout(folder));
  auto opened = std::make_unique<state>();
  for (const std::string& name : found.names) opened->paths.push_back(folder / name);
  for (std::size_t i = 0; i < found.names.size(); ++i) {
    const std::size_t left = checkpoint_limits::tensors_max - opened->tensors.size();
    TROUPE_TRY(one, open_safetensors(folder, found.names[i], left));
    for (tensor_info& tensor : one.tensors) tensor.file = static_cast<std::uint32_t>(i);
    std::ranges::move(one.tensors, std::back_inserter(opened->tensors));
    opened->files.push_back(std::move(one.file));
  }
  std::ranges::sort(opened->tensors, {}, &tensor_info::name);
  TROUPE_TRY_VOID(check_unique(opened->tensors, opened->paths));
  checkpoint result(std::move(opened));
  for (const auto& [name, file] : found.index.tensors) {
    const std::filesystem::path& path = result.state_->paths[file];
    const auto tensor = std::ranges::lower_bound(result.tensors(), name, {}, &tensor_info::name);
    if (tensor == result.tensors().end() || tensor->name != name || tensor->file != file) {
      return base::fail(base::error_code::invalid_argument, origin,
                        fmt::format("{}: says that tensor {} is in {}, which does not have it",
                                    found.index_path.string(), in_quotes(name), path.string()));
    }
  }
  return result;
}

checkpoint checkpoint::random(std::vector<tensor_info> tensors) {
  auto made = std::make_unique<state>();
  made->random = true;
  made->paths.emplace_back("random weights/");
  made->tensors = std::move(tensors);
  for (tensor_info& tensor : made->tensors) {
    tensor.file = 0;
    tensor.offset = 0;
    tensor.bytes = size_of(tensor.dtype);
    for (const std::int64_t extent : tensor.shape) {
      tensor.bytes *= static_cast<std::uint64_t>(extent);
    }
  }
  std::ranges::sort(made->tensors, {}, &tensor_info::name);
  return checkpoint(std::move(made));
}

std::span<const tensor_info> checkpoint::tensors() const noexcept { return state_->tensors; }

std::span<const std::filesystem::path> checkpoint::files() const noexcept { return state_->paths; }

bool checkpoint::contains(std::string_view name) const noexcept {
  return std::ranges::binary_search(tensors(), name, {}, &tensor_info::name);
}

base::result<const tensor_info*> checkpoint::find(std::string_view name) const {
  const auto it = std::ranges::lower_bound(tensors(), name, {}, &tensor_info::name);
  if (it == tensors().end() || it->name != name) {
    const std::string_view near = nearest_name(tensors(), name);
    return base::fail(
        base::error_code::not_found, origin,
        fmt::format("{}: no tensor {}{}", files().front().parent_path().string(),
                    in_quotes(name, checkpoint_limits::name_bytes_max),
                    near.empty() ? std::string() : "; the nearest is " + in_quotes(near)));
  }
  if (it->shape.size() > read_dimensions_max) {
    return base::fail(base::error_code::unimplemented, origin,
                      fmt::format("{}: tensor {} has {} dimensions, at most {} are implemented",
                                  files()[it->file].string(), in_quotes(name), it->shape.size(),
                                  read_dimensions_max));
  }
  return &*it;
}

base::result<std::vector<file_identity>> checkpoint::identities() const {
  std::vector<file_identity> all;
  for (std::size_t i = 0; i < state_->files.size(); ++i) {
    TROUPE_TRY(one, state_->files[i].identity(state_->paths[i].string()));
    if (one) all.push_back(*one);
  }
  return all;
}

base::result<void> checkpoint::read(const tensor_info& tensor, std::uint64_t offset,
                                    std::span<std::byte> out) const {
  if (tensor.file >= state_->paths.size() || offset > tensor.bytes ||
      out.size() > tensor.bytes - offset) {
    return base::fail(base::error_code::out_of_range, origin,
                      fmt::format("tensor {}: {} bytes at {} asked of {}", in_quotes(tensor.name),
                                  out.size(), offset, tensor.bytes));
  }
  if (state_->random) {
    fill_random_weights(tensor, offset, out);
    return {};
  }
  const std::string what =
      fmt::format("{}: tensor {}", state_->paths[tensor.file].string(), in_quotes(tensor.name));
  return state_->files[tensor.file].read(tensor.offset + offset, out, what);
}

}  // namespace troupe::models
