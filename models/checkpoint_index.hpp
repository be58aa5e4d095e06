// model.safetensors.index.json: which file holds which tensor. Internal to models/checkpoint*.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace troupe::models {

struct checkpoint_index {
  std::vector<std::string> files;                              // sorted, each once
  std::vector<std::pair<std::string, std::uint32_t>> tensors;  // name, index into files; by name
};

// File names in it must be plain names that end in .safetensors: an index cannot lead out of its
// folder. `path` names the index in errors. Errors: invalid_argument.
[[nodiscard]] base::result<checkpoint_index> parse_checkpoint_index(std::string_view json,
                                                                    std::string_view path);

}  // namespace troupe::models
