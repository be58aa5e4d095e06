#include <bit>
#include <cmath>

#include "kernels/write_kv/write_kv.hpp"

namespace troupe::kernels {
namespace {

// The nearest of the two bfloat16 neighbours, by distance in double; ties to the even one.
std::uint16_t nearest_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto below = static_cast<std::uint16_t>(bits >> 16);  // towards zero
  if (std::isnan(value)) return static_cast<std::uint16_t>(below | 0x40U);
  if (std::isinf(value)) return below;
  const auto above = static_cast<std::uint16_t>(below + 1);
  const auto widen = [](std::uint16_t half) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16));
  };
  const double largest = 0x1p128;  // where the step above the largest finite value would lie
  const double up = std::isinf(widen(above)) ? std::copysign(largest, value) : widen(above);
  const double to_below = std::fabs(static_cast<double>(value) - widen(below));
  const double to_above = std::fabs(up - static_cast<double>(value));
  if (to_below == to_above) return (below & 1U) == 0 ? below : above;
  return to_below < to_above ? below : above;
}

}  // namespace

void write_kv_reference(const write_kv_args& args) {
  const kv_view& cache = args.cache;
  for (std::size_t token = 0; token < args.slots.size(); ++token) {
    const std::int64_t block = args.slots[token] / kv_block_tokens;
    const std::int64_t place = args.slots[token] % kv_block_tokens;
    for (std::int64_t head = 0; head < cache.heads; ++head) {
      for (std::int64_t i = 0; i < cache.head_dim; ++i) {
        const std::int64_t to =
            ((head * cache.blocks + block) * kv_block_tokens + place) * cache.head_dim + i;
        const auto store = [&](const tensor_view& from, const device_handle& memory) {
          const float value =
              from.row<float>(static_cast<std::int64_t>(token))[head * cache.head_dim + i];
          if (cache.type == dtype::float32) {
            reinterpret_cast<float*>(memory.address)[to] = value;
          } else {
            reinterpret_cast<std::uint16_t*>(memory.address)[to] = nearest_bfloat16(value);
          }
        };
        store(args.keys, cache.keys);
        store(args.values, cache.values);
      }
    }
  }
}

}  // namespace troupe::kernels
