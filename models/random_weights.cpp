#include "models/random_weights.hpp"

#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/float8.hpp"
#include "models/float8_scales.hpp"
#include "models/registry.hpp"

namespace troupe::models {
namespace {

// FNV-1a: any mixing of the name will do.
std::uint64_t seed_of(std::string_view name) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char letter : name) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3ULL;
  }
  return hash;
}

// Source: Steele et al., "Fast splittable pseudorandom number generators" (OOPSLA 2014), the mixing
// function of SplitMix64.
std::uint64_t mixed(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

constexpr std::uint16_t one = 0x3F80;     // bfloat16
constexpr float half_width = 0.0346410F;  // sqrt(3) * 0.02: uniform with a deviation of 0.02

// Uniform in [-1, 1).
float unit_of(std::uint64_t seed, std::uint64_t index) noexcept {
  const std::uint64_t four = mixed(seed + (index / 4) * 0x9E3779B97F4A7C15ULL);
  const auto word = static_cast<std::uint16_t>(four >> (index % 4 * 16));
  return static_cast<float>(word) * 0x1p-15F - 1.0F;
}

// Calls next(index) for each element from byte `offset` on and writes what it returns.
template <class Next>
void fill(std::uint64_t offset, std::span<std::byte> out, const Next& next) {
  using element = decltype(next(std::uint64_t{}));
  for (std::size_t i = 0; i + sizeof(element) <= out.size(); i += sizeof(element)) {
    const element value = next((offset + i) / sizeof(element));
    std::memcpy(out.data() + i, &value, sizeof(element));
  }
}

// The matrix as float8_e4m3, and its scales.
void quantise(std::vector<tensor_info>& tensors, std::size_t index) {
  tensor_info& matrix = tensors[index];
  matrix.dtype = stored_dtype::float8_e4m3;
  const matrix_part scales = scales_of(
      {.name = matrix.name, .all_outputs = matrix.shape[0], .all_inputs = matrix.shape[1]});
  tensors.push_back({.name = scales.name,
                     .dtype = stored_dtype::float32,
                     .shape = {scales.all_outputs, scales.all_inputs}});
}

}  // namespace

void fill_random_weights(const tensor_info& tensor, std::uint64_t offset,
                         std::span<std::byte> out) {
  const std::uint64_t seed = seed_of(tensor.name);
  if (tensor.dtype == stored_dtype::float8_e4m3) {
    fill(offset, out, [&](std::uint64_t index) {
      return kernels::to_float8_towards_zero(unit_of(seed, index) * kernels::float8_max);
    });
  } else if (tensor.dtype == stored_dtype::float32) {
    fill(offset, out, [&](std::uint64_t index) {
      return half_width / kernels::float8_max * (1.0F + 0.25F * unit_of(seed, index));
    });
  } else if (tensor.shape.size() == 1) {
    fill(offset, out, [](std::uint64_t) { return one; });
  } else {
    fill(offset, out, [&](std::uint64_t index) {
      const auto bits = std::bit_cast<std::uint32_t>(unit_of(seed, index) * half_width);
      return static_cast<std::uint16_t>(bits >> 16);
    });
  }
}

base::result<checkpoint> random_weights(const model_config& config) {
  std::vector<tensor_info> asked;
  weight_reader reader(
      {.files = nullptr, .plan_only = true, .progress = {}, .after_part = {}, .asked = &asked});
  TROUPE_TRY_VOID(load({reader, config, placement{}}));
  const std::size_t tensors = asked.size();
  for (std::size_t i = 0; i < tensors; ++i) {
    asked[i].dtype = stored_dtype::bfloat16;
    const bool matrix = asked[i].shape.size() == 2;
    if (matrix && config.quantization && config.quantization->converts(asked[i].name)) {
      quantise(asked, i);
    }
  }
  return checkpoint::random(std::move(asked));
}

}  // namespace troupe::models
