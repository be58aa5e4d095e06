// Which cache blocks are free: one allocator a KV group, the same decisions for every rank.
//
//   block_allocator blocks(128);
//   if (auto block = blocks.take()) table.push_back(*block);
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/ops.hpp"

namespace troupe::engine {

// Blocks that `positions` positions of one sequence hold at once, at most, in any group. Blocks out
// of the window are given back only between steps, so a sliding group holds its window and one
// chunk; counting every position is right for full attention and safe for the others.
[[nodiscard]] constexpr std::int64_t kv_blocks_for(std::int64_t positions) noexcept {
  return (positions + kernels::kv_block_tokens - 1) / kernels::kv_block_tokens;
}

class block_allocator {
 public:
  explicit block_allocator(std::int64_t blocks);

  // A free block, or none. Cost: O(1).
  [[nodiscard]] std::optional<std::int32_t> take();
  void give_back(std::int32_t block);

  [[nodiscard]] std::int64_t free_blocks() const noexcept {
    return static_cast<std::int64_t>(free_.size());
  }
  [[nodiscard]] std::int64_t blocks() const noexcept {
    return static_cast<std::int64_t>(taken_.size());
  }

 private:
  std::vector<std::int32_t> free_;  // last in, first out: warm blocks are reused first
  std::vector<bool> taken_;
};

}  // namespace troupe::engine
