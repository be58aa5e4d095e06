#include "kernels/attention/attention_prefetch.hpp"

#include <algorithm>

namespace troupe::kernels::attention_detail {

prefetcher::prefetcher(const column_block& block, const token_range& tokens) {
  const kv_view& cache = block.args.cache;
  const auto element_bytes = static_cast<std::int64_t>(size_of(cache.type));
  const auto last = static_cast<std::size_t>(block.item.columns - 1);
  const std::int64_t end = block.position[last] / kv_block_tokens + 1;
  const std::int64_t begin = (tokens.first + group_tokens) / kv_block_tokens;
  extent_bytes_ = kv_block_tokens * cache.head_dim * element_bytes;
  for (const std::byte* base : {cache.values.address, cache.keys.address}) {
    for (std::int64_t i = begin; i < std::min(end, begin + group_tokens / kv_block_tokens); ++i) {
      begins_[extents_++] = base + block.block_offset(i) * element_bytes;
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
