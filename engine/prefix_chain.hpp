// Names of a sequence's full blocks: each is a digest of everything before it, so that two blocks
// with one name hold the same K and V.
//
// The chain starts at HMAC-SHA-256(key, tenant | salt | ...): nobody without the server's key can
// tell or make a name, and sequences of different tenants or salts have no name in common, so that
// the time of an answer says nothing of another tenant's prompts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "engine/block_pool.hpp"
#include "engine/sequence_log.hpp"

namespace troupe::engine {

struct prefix_cache_options {
  bool enabled = true;
  base::digest key{};      // secret, drawn at the start
  std::string model = {};  // what else K and V depend on: weights, numerics profile, adapter
  // Rotations depend on the prompt's length (rope::depends_on_length): it belongs to the root.
  bool depends_on_length = false;
};

class prefix_chain {
 public:
  prefix_chain(const prefix_cache_options& options, const sequence_log& log);

  // Names the blocks that are full after `tokens` tokens of the log, which only grows.
  void extend(const sequence_log& log, std::int64_t tokens);
  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }
  [[nodiscard]] const base::digest& key(std::size_t block) const { return keys_[block]; }

  // Shape: tokens [16 * block, 16 * block + 16) of the log.
  [[nodiscard]] static block_tokens tokens_of(const sequence_log& log, std::size_t block);

 private:
  base::digest root_;
  std::vector<base::digest> keys_;
};

}  // namespace troupe::engine
