#include "kernels/attention/attention_prefetch.hpp"

#include <algorithm>

namespace troupe::kernels::attention_detail {

prefetcher::prefetcher(const column_block& block, const token_range& tokens) {
  const auto last = static_cast<std::size_t>(block.item.columns - 1);
  const std::int64_t begin = (tokens.first + group_tokens) / kv_block_tokens;
  const std::int64_t end = block.position[last] / kv_block_tokens + 1;
  if (begin < end) {
    add(block.args, block.item, begin, end);
    return;
  }
  if (block.next == nullptr) return;
  const work_item& next = *block.next;
  const auto group = static_cast<std::int64_t>(next.heads.size());
  const auto position_of = [&](std::int64_t column) {
    return next.sequence->first_position + column / group;
  };
  const std::int64_t first = first_seen(block.args, position_of(next.column_begin));
  add(block.args, next, first / kv_block_tokens,
      position_of(next.column_begin + next.columns - 1) / kv_block_tokens + 1);
}

void prefetcher::add(const attention_args& args, const work_item& item, std::int64_t begin,
                     std::int64_t end) {
  const kv_view& cache = args.cache;
  const auto element_bytes = static_cast<std::int64_t>(size_of(cache.type));
  extent_bytes_ = kv_block_tokens * cache.head_dim * element_bytes;
  const std::int64_t seen = std::min(end, begin + group_tokens / kv_block_tokens);
  for (const std::byte* base : {cache.values.address, cache.keys.address}) {
    for (std::int64_t i = begin; i < seen; ++i) {
      begins_[extents_++] = base + item.block_offset(cache, i) * element_bytes;
    }
  }
}

bool prefetcher::next_extent() {
  if (extent_ == extents_) return false;
  at_ = begins_[extent_++];
  end_ = at_ + extent_bytes_;
  return true;
}

}  // namespace troupe::kernels::attention_detail
