#include "engine/block_allocator.hpp"

#include "base/check.hpp"

namespace troupe::engine {

block_allocator::block_allocator(std::int64_t blocks)
    : taken_(static_cast<std::size_t>(blocks), false) {
  free_.reserve(taken_.size());
  for (std::int64_t block = blocks; block-- > 0;) free_.push_back(static_cast<std::int32_t>(block));
}

std::optional<std::int32_t> block_allocator::take() {
  if (free_.empty()) return std::nullopt;
  const std::int32_t block = free_.back();
  free_.pop_back();
  taken_[static_cast<std::size_t>(block)] = true;
  return block;
}

void block_allocator::give_back(std::int32_t block) {
  const auto index = static_cast<std::size_t>(block);
  TROUPE_CHECK(index < taken_.size() && taken_[index]);
  taken_[index] = false;
  free_.push_back(block);
}

}  // namespace troupe::engine
