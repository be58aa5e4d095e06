// Safetensors bytes for tests: a header as text and the data section after it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace troupe::models {

inline std::string length_prefix(std::uint64_t bytes) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>((bytes >> (8 * i)) & 0xff);
  return out;
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return length_prefix(header.size()) + header + data;
}

inline nlohmann::json tensor_entry(const char* dtype, nlohmann::json shape, std::uint64_t begin,
                                   std::uint64_t end) {
  return {{"dtype", dtype}, {"shape", std::move(shape)}, {"data_offsets", {begin, end}}};
}

// `count` bytes 0, 1, 2 ... (mod 251, a prime, so that a wrong offset shows).
inline std::string counted_bytes(std::size_t count) {
  std::string out(count, '\0');
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<char>(i % 251);
  return out;
}

}  // namespace troupe::models
