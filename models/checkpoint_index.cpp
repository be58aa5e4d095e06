#include "models/checkpoint_index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "models/checkpoint.hpp"
#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

using limits = checkpoint_limits;
constexpr std::string_view origin = "models";
constexpr int index_depth_max = 64;
constexpr std::size_t file_name_bytes_max = 255;  // NAME_MAX of Linux

bool is_plain_file_name(std::string_view name) {
  const bool clean = std::ranges::none_of(name, [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  return clean && name.size() <= file_name_bytes_max && !name.starts_with('.') &&
         name.ends_with(".safetensors");
}

// Top-level fields other than weight_map (metadata) are skipped, bounded by depth and size.
class index_events final : public bounded_json_events {
 public:
  index_events() : bounded_json_events(index_depth_max) {}

  bool on_start(bool object) override {
    if (depth() == 1) return object || refuse("not a JSON object");
    if (depth() == 2 && in_map_) return object || refuse("weight_map is not an object");
    if (in_map_) return refuse(not_a_name());
    return true;
  }

  bool on_key(std::string& name) override {
    if (depth() == 1) {
      in_map_ = name == "weight_map";
      if (in_map_ && std::exchange(seen_map_, true)) return refuse("weight_map twice");
    }
    if (depth() != 2 || !in_map_) return true;
    if (name.size() > limits::name_bytes_max) {
      return refuse(fmt::format("a tensor name of {} bytes, at most {} are allowed: {}",
                                name.size(), limits::name_bytes_max, in_quotes(name)));
    }
    tensor_ = std::move(name);
    return true;
  }

  bool on_scalar(nlohmann::json value) override {
    if (depth() == 0) return refuse("not a JSON object");
    if (depth() == 1 && in_map_) return refuse("weight_map is not an object");
    if (depth() != 2 || !in_map_) return true;
    if (!value.is_string()) return refuse(not_a_name());
    const auto& file = value.get_ref<const std::string&>();
    if (!is_plain_file_name(file)) {
      return refuse(
          fmt::format("weight_map: tensor {} is in {}: give the plain name of a "
                      ".safetensors file in this folder",
                      in_quotes(tensor_), in_quotes(file)));
    }
    if (tensors_.size() == limits::tensors_max) {
      return refuse(fmt::format("more than {} tensors", limits::tensors_max));
    }
    const auto next = static_cast<std::uint32_t>(files_.size());
    const auto [it, added] = files_.try_emplace(file, next);
    if (added && files_.size() > limits::files_max) {
      return refuse(fmt::format("more than {} files", limits::files_max));
    }
    tensors_.emplace_back(std::move(tensor_), it->second);
    return true;
  }

  bool on_end() override { return true; }

  [[nodiscard]] bool seen_map() const noexcept { return seen_map_; }

  checkpoint_index take() {
    checkpoint_index index;
    std::vector<std::uint32_t> place(files_.size());  // order of appearance -> sorted
    for (const auto& [name, appearance] : files_) {
      place[appearance] = static_cast<std::uint32_t>(index.files.size());
      index.files.push_back(name);
    }
    for (auto& tensor : tensors_) tensor.second = place[tensor.second];
    std::ranges::sort(tensors_);
    index.tensors = std::move(tensors_);
    return index;
  }

 private:
  std::string not_a_name() const {
    return fmt::format("weight_map: tensor {}: give a file name", in_quotes(tensor_));
  }

  std::map<std::string, std::uint32_t> files_;
  std::vector<std::pair<std::string, std::uint32_t>> tensors_;
  std::string tensor_;
  bool in_map_ = false;
  bool seen_map_ = false;
};

}  // namespace

base::result<checkpoint_index> parse_checkpoint_index(std::string_view json,
                                                      std::string_view path) {
  index_events events;
  TROUPE_TRY_VOID(events.run(json, limits::index_bytes_max, path));
  const auto wrong = [&](std::string_view what) {
    return base::fail(base::error_code::invalid_argument, origin,
                      fmt::format("{}: {}", path, what));
  };
  if (!events.seen_map()) return wrong("no weight_map");
  checkpoint_index index = events.take();
  if (index.tensors.empty()) return wrong("weight_map is empty");
  const auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
  const auto twice = std::ranges::adjacent_find(index.tensors, same_name);
  if (twice != index.tensors.end()) {
    return wrong(fmt::format("weight_map: tensor {} twice", in_quotes(twice->first)));
  }
  return index;
}

}  // namespace troupe::models
