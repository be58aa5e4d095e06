#include "models/checkpoint_names.hpp"

#include <algorithm>
#include <array>

namespace troupe::models {
namespace {

constexpr std::size_t distance_max = 16;
constexpr std::size_t length_max = checkpoint_limits::name_bytes_max;

// Levenshtein distance, or `bound` + 1 when it is more: only the band of cells within `bound` of
// the diagonal can be on a path that cheap.
std::size_t bounded_distance(std::string_view a, std::string_view b, std::size_t bound) {
  const std::size_t beyond = bound + 1;
  if (a.size() > length_max || b.size() > length_max) return beyond;
  if (std::max(a.size(), b.size()) - std::min(a.size(), b.size()) > bound) return beyond;
  std::array<std::size_t, length_max + 2> row{};
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    const std::size_t first = i > bound ? i - bound : 1;
    const std::size_t last = std::min(b.size(), i + bound);
    std::size_t diagonal = row[first - 1];
    row[first - 1] = first == 1 ? i : beyond;
    std::size_t best = row[first - 1];
    for (std::size_t j = first; j <= last; ++j) {
      const std::size_t above = j == i + bound ? beyond : row[j];
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, above + 1, row[j - 1] + 1});
      best = std::min(best, row[j]);
    }
    if (best > bound) return beyond;
  }
  return row[b.size()];
}

}  // namespace

std::string_view nearest_name(std::span<const tensor_info> tensors, std::string_view name) {
  std::size_t bound = std::min(distance_max, name.size() / 4);
  std::string_view nearest;
  for (const tensor_info& tensor : tensors) {
    const std::size_t distance = bounded_distance(tensor.name, name, bound);
    if (distance > bound) continue;
    nearest = tensor.name;
    if (distance == 0) break;
    bound = distance - 1;
  }
  return nearest;
}

}  // namespace troupe::models
