// The header of one safetensors file: what it says, after every bound has been checked.
//
// Layout: 8 bytes little-endian length n, n bytes of JSON, then the data section. The JSON maps
// each tensor's name to {dtype, shape, data_offsets}, offsets counted from the data section's
// start, and may hold __metadata__ (strings). It is hostile input: it is refused at the first thing
// wrong while it is parsed, so that its size bounds the memory it can cost. Source: the safetensors
// format, README of huggingface/safetensors, "Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/checkpoint.hpp"

namespace troupe::models {

inline constexpr std::uint64_t safetensors_prefix_bytes = 8;
inline constexpr std::size_t safetensors_dimensions_max = 8;  // that a file may say
inline constexpr std::size_t read_dimensions_max = 4;         // that this build reads

struct safetensors_header {
  std::string_view json;
  std::uint64_t data_bytes = 0;   // of the data section, from the file's size
  std::size_t tensors_max = 0;    // how many more there may be
  std::uint64_t data_offset = 0;  // of the data section in the file: added to every offset
};

// The tensors by position in the file; `file` of each is 0. `path` names the file in errors.
// Errors: invalid_argument (path, tensor and what is wrong), data_loss (the tensors need more bytes
// than the file has).
[[nodiscard]] base::result<std::vector<tensor_info>> parse_safetensors(
    const safetensors_header& header, std::string_view path);

// The length field. Errors: invalid_argument beyond checkpoint_limits::header_bytes_max.
[[nodiscard]] base::result<std::uint64_t> safetensors_header_bytes(
    std::span<const std::byte, safetensors_prefix_bytes> prefix, std::string_view path);

}  // namespace troupe::models
