#include "models/random_weights.hpp"

#include <bit>
#include <cstring>
#include <utility>
#include <vector>

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

std::uint16_t element_of(std::uint64_t seed, std::uint64_t index) noexcept {
  const std::uint64_t four = mixed(seed + (index / 4) * 0x9E3779B97F4A7C15ULL);
  const auto word = static_cast<std::uint16_t>(four >> (index % 4 * 16));
  const float value = (static_cast<float>(word) * 0x1p-15F - 1.0F) * half_width;
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
}

}  // namespace

void fill_random_weights(const tensor_info& tensor, std::uint64_t offset,
                         std::span<std::byte> out) {
  const std::uint64_t seed = seed_of(tensor.name);
  const bool vector = tensor.shape.size() == 1;
  for (std::size_t i = 0; i + 2 <= out.size(); i += 2) {
    const std::uint16_t bits = vector ? one : element_of(seed, (offset + i) / 2);
    std::memcpy(out.data() + i, &bits, 2);
  }
}

base::result<checkpoint> random_weights(const model_config& config) {
  std::vector<tensor_info> asked;
  weight_reader reader(
      {.files = nullptr, .plan_only = true, .progress = {}, .after_part = {}, .asked = &asked});
  TROUPE_TRY_VOID(load({reader, config, placement{}}));
  return checkpoint::random(std::move(asked));
}

}  // namespace troupe::models
