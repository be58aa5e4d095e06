// The cache blocks of one KV group: free, held by sequences, or kept because what they hold is
// known and may be wanted again. The same decisions for every rank.
//
// A held block has one user or more: sequences with the same beginning share its blocks. A block
// that is full of known tokens gets a key (prefix_chain) and stays findable when its last user has
// gone, until its memory is needed. Then the tenant that keeps the most gives up what it used
// longest ago, so that one tenant's traffic cannot drive out another's prefixes.
//
//   block_pool blocks(128);
//   if (auto block = blocks.take()) table.push_back(*block);
//   blocks.keep(block, {.key = key, .tokens = tokens, .tenant = tenant});
//   if (auto block = blocks.share(key, tokens)) table.push_back(*block);
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/sha256.hpp"
#include "kernels/ops.hpp"

namespace troupe::engine {

// Blocks that `positions` positions of one sequence hold at once, at most, in any group. Blocks out
// of the window are given back only between steps, so a sliding group holds its window and one
// chunk; counting every position is right for full attention and safe for the others.
[[nodiscard]] constexpr std::int64_t kv_blocks_for(std::int64_t positions) noexcept {
  return (positions + kernels::kv_block_tokens - 1) / kernels::kv_block_tokens;
}

using block_tokens = std::array<std::int32_t, kernels::kv_block_tokens>;

// What a full block holds: its place in a chain of prefixes, and the tokens that it must match.
struct block_content {
  base::digest key;
  block_tokens tokens;
  std::uint32_t tenant = 0;
};

class block_pool {
 public:
  explicit block_pool(std::int64_t blocks);

  // A block for one user: a free one, else the kept one to give up; none when all are held.
  // Cost: O(1), and one look at each tenant when a kept block goes.
  [[nodiscard]] std::optional<std::int32_t> take();
  // One user less. The last one's block is kept where its content is known, else free.
  void give_back(std::int32_t block);

  // Tells what a held block holds. A content that another block holds already is not noted twice.
  void keep(std::int32_t block, const block_content& content);
  [[nodiscard]] bool holds(const base::digest& key, const block_tokens& tokens) const;
  // One more user of the block with this content; none when there is no such block.
  [[nodiscard]] std::optional<std::int32_t> share(const base::digest& key,
                                                  const block_tokens& tokens);

  // Blocks without a user: free ones and kept ones.
  [[nodiscard]] std::int64_t free_blocks() const noexcept { return free_blocks_; }
  [[nodiscard]] std::int64_t kept_blocks() const noexcept {
    return free_blocks_ - static_cast<std::int64_t>(free_.size());
  }
  [[nodiscard]] std::int64_t blocks() const noexcept {
    return static_cast<std::int64_t>(states_.size());
  }

 private:
  struct block_state {
    std::int64_t users = 0;
    std::optional<block_content> content;
    std::list<std::int32_t>::iterator place;  // in kept_, while it has content and no user
  };
  // Keys are digests: any eight of their bytes are as good as a hash of all.
  struct key_hash {
    std::size_t operator()(const base::digest& key) const noexcept {
      std::size_t hash = 0;
      std::memcpy(&hash, key.data(), sizeof hash);
      return hash;
    }
  };
  [[nodiscard]] std::optional<std::int32_t> find(const base::digest& key,
                                                 const block_tokens& tokens) const;
  void forget_oldest();

  std::vector<block_state> states_;
  std::vector<std::int32_t> free_;  // last in, first out: warm blocks are reused first
  std::unordered_map<base::digest, std::int32_t, key_hash> known_;
  std::map<std::uint32_t, std::list<std::int32_t>> kept_;  // of each tenant, oldest first
  std::int64_t free_blocks_ = 0;
};

}  // namespace troupe::engine
