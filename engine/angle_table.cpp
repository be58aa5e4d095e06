#include "engine/angle_table.hpp"

#include <algorithm>
#include <numeric>

namespace troupe::engine {
namespace {

constexpr std::int64_t positions_at_once = 1024;
// Beyond this a row is computed when it is needed: the table would take more than 64 MiB of
// float32 pairs at 128 angles.
constexpr std::int64_t positions_kept_max = 65'536;

}  // namespace

angle_table::angle_table(const models::rope& of) : rope_(of), half_(of.inv_freq().size()) {}

void angle_table::grow(std::int64_t positions) {
  const auto have = static_cast<std::int64_t>(cos_.size() / std::max<std::size_t>(1, half_));
  if (positions <= have) return;
  const std::int64_t wanted =
      (positions + positions_at_once - 1) / positions_at_once * positions_at_once;
  std::vector<std::int64_t> added(static_cast<std::size_t>(wanted - have));
  std::iota(added.begin(), added.end(), have);
  const std::size_t begin = cos_.size();
  cos_.resize(begin + added.size() * half_);
  sin_.resize(cos_.size());
  rope_.fill(added, {}, std::span(cos_).subspan(begin), std::span(sin_).subspan(begin));
}

void angle_table::fill(std::span<const std::int64_t> positions,
                       std::span<const std::int64_t> rope_lengths, std::span<float> cos,
                       std::span<float> sin) {
  const std::int64_t last =
      positions.empty() ? 0 : *std::max_element(positions.begin(), positions.end());
  if (rope_.depends_on_length() || last >= positions_kept_max) {
    rope_.fill(positions, rope_lengths, cos, sin);
    return;
  }
  grow(last + 1);
  for (std::size_t token = 0; token < positions.size(); ++token) {
    const std::size_t from = static_cast<std::size_t>(positions[token]) * half_;
    std::copy_n(cos_.begin() + static_cast<std::ptrdiff_t>(from), half_,
                cos.begin() + static_cast<std::ptrdiff_t>(token * half_));
    std::copy_n(sin_.begin() + static_cast<std::ptrdiff_t>(from), half_,
                sin.begin() + static_cast<std::ptrdiff_t>(token * half_));
  }
}

}  // namespace troupe::engine
