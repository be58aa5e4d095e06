#include "transport/tree_sum.hpp"

#include "base/check.hpp"
#include "transport/arguments.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace troupe::transport {
namespace {

// 4 KiB: stays in the first-level cache beside one block of each of eight sources.
constexpr std::size_t block_floats = 1024;

void sum_2(const float* const* s, std::size_t begin, std::size_t count, float* __restrict out) {
  const float* a = s[0] + begin;
  const float* b = s[1] + begin;
  for (std::size_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

void sum_4(const float* const* s, std::size_t begin, std::size_t count, float* __restrict out) {
  const float* a = s[0] + begin;
  const float* b = s[1] + begin;
  const float* c = s[2] + begin;
  const float* d = s[3] + begin;
  for (std::size_t i = 0; i < count; ++i) out[i] = (a[i] + b[i]) + (c[i] + d[i]);
}

void sum_8(const float* const* s, std::size_t begin, std::size_t count, float* __restrict out) {
  const float* a = s[0] + begin;
  const float* b = s[1] + begin;
  const float* c = s[2] + begin;
  const float* d = s[3] + begin;
  const float* e = s[4] + begin;
  const float* f = s[5] + begin;
  const float* g = s[6] + begin;
  const float* h = s[7] + begin;
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]));
  }
}

// At most block_floats; beyond eight sources the two halves of the tree, one in a block of its own.
void sum_block(std::span<const float* const> sources, std::size_t begin, std::span<float> out) {
  switch (sources.size()) {
    case 1:
      std::copy_n(sources[0] + begin, out.size(), out.data());
      return;
    case 2:
      return sum_2(sources.data(), begin, out.size(), out.data());
    case 4:
      return sum_4(sources.data(), begin, out.size(), out.data());
    case 8:
      return sum_8(sources.data(), begin, out.size(), out.data());
    default:
      break;
  }
  std::array<float, block_floats> upper;
  const std::size_t half = sources.size() / 2;
  sum_block(sources.first(half), begin, out);
  sum_block(sources.subspan(half), begin, std::span(upper).first(out.size()));
  add_to(out, std::span(upper).first(out.size()));
}

}  // namespace

void tree_sum(std::span<const float* const> sources, std::span<float> out) {
  TROUPE_CHECK(sources.size() <= static_cast<std::size_t>(group_size_max) &&
               is_power_of_two(static_cast<int>(sources.size())));
  for (std::size_t begin = 0; begin < out.size(); begin += block_floats) {
    const std::size_t count = std::min(block_floats, out.size() - begin);
    sum_block(sources, begin, out.subspan(begin, count));
  }
}

void add_to(std::span<float> values, std::span<const float> other) {
  TROUPE_CHECK(values.size() == other.size());
  float* a = values.data();
  const float* __restrict b = other.data();
  for (std::size_t i = 0; i < values.size(); ++i) a[i] += b[i];
}

}  // namespace troupe::transport
