// Brings the next group's K and V (behind an item's last the next item's first) into the
// second-level cache, a few lines at a time between the computations of this group: asked for at
// once, lines would only wait for one another. The hardware looks ahead within a block but not to
// the next.
#pragma once

#include <array>

#include "kernels/attention/attention_work.hpp"

namespace troupe::kernels::attention_detail {

class prefetcher {
 public:
  // Of the group behind `tokens`, as far as some column of the item sees it; behind the last, of
  // the next item's first group.
  prefetcher(const column_block& block, const token_range& tokens);

  void lines(std::int64_t count) {
    for (; count > 0; --count, at_ += line_bytes) {
      if (at_ >= end_ && !next_extent()) return;
      __builtin_prefetch(at_, 0, 2);
    }
  }

 private:
  static constexpr std::int64_t line_bytes = 64;
  bool next_extent();
  // Blocks [begin, end) of the item, at most a group's.
  void add(const attention_args& args, const work_item& item, std::int64_t begin, std::int64_t end);

  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
  std::int64_t extent_bytes_ = 0;
  std::size_t extents_ = 0;
  std::size_t extent_ = 0;
  std::array<const std::byte*, 2 * group_tokens / kv_block_tokens> begins_{};
};

}  // namespace troupe::kernels::attention_detail
