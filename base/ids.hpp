// Strong ids: integers that do not mix by accident. `rank_id{3}`, `id.value`, compared and hashed.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace troupe::base {

template <class Tag, class Integer>
struct strong_id {
  Integer value{};
  friend constexpr auto operator<=>(const strong_id&, const strong_id&) = default;
};

// Range: 0 .. world_size - 1 within one gang.
using rank_id = strong_id<struct rank_tag, std::int32_t>;
// A sequence of one engine; never reused while the process lives.
using sequence_id = strong_id<struct sequence_tag, std::uint64_t>;
using request_id = strong_id<struct request_tag, std::uint64_t>;

// One life of a gang: a new incarnation draws 64 random bits, each repair counts `number` up. Work
// of an older epoch is dropped.
struct epoch_id {
  std::uint64_t incarnation = 0;
  std::uint64_t number = 0;
  friend constexpr auto operator<=>(const epoch_id&, const epoch_id&) = default;
};

}  // namespace troupe::base

template <class Tag, class Integer>
struct std::hash<troupe::base::strong_id<Tag, Integer>> {
  std::size_t operator()(const troupe::base::strong_id<Tag, Integer>& id) const noexcept {
    return std::hash<Integer>{}(id.value);
  }
};
