#include "engine/block_pool.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace troupe::engine {

block_pool::block_pool(std::int64_t blocks)
    : states_(static_cast<std::size_t>(blocks)), free_blocks_(blocks) {
  free_.reserve(states_.size());
  for (std::int64_t block = blocks; block-- > 0;) free_.push_back(static_cast<std::int32_t>(block));
}

std::optional<std::int32_t> block_pool::take() {
  if (free_blocks_ == 0) return std::nullopt;
  if (free_.empty()) forget_oldest();
  const std::int32_t block = free_.back();
  free_.pop_back();
  states_[static_cast<std::size_t>(block)].users = 1;
  --free_blocks_;
  return block;
}

void block_pool::forget_oldest() {
  const auto most = std::max_element(kept_.begin(), kept_.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  TROUPE_CHECK(most != kept_.end());
  const std::int32_t block = most->second.front();
  most->second.pop_front();
  if (most->second.empty()) kept_.erase(most);
  block_state& state = states_[static_cast<std::size_t>(block)];
  known_.erase(state.content->key);
  state.content.reset();
  free_.push_back(block);
}

void block_pool::give_back(std::int32_t block) {
  const auto index = static_cast<std::size_t>(block);
  TROUPE_CHECK(index < states_.size() && states_[index].users > 0);
  block_state& state = states_[index];
  if (--state.users > 0) return;
  ++free_blocks_;
  if (!state.content) {
    free_.push_back(block);
    return;
  }
  auto& of_tenant = kept_[state.content->tenant];
  state.place = of_tenant.insert(of_tenant.end(), block);
}

void block_pool::keep(std::int32_t block, const block_content& content) {
  const auto index = static_cast<std::size_t>(block);
  TROUPE_CHECK(index < states_.size() && states_[index].users > 0);
  block_state& state = states_[index];
  if (state.content) {
    TROUPE_CHECK(state.content->key == content.key);
    return;
  }
  if (known_.try_emplace(content.key, block).second) state.content = content;
}

std::optional<std::int32_t> block_pool::find(const base::digest& key,
                                             const block_tokens& tokens) const {
  const auto found = known_.find(key);
  if (found == known_.end()) return std::nullopt;
  const block_state& state = states_[static_cast<std::size_t>(found->second)];
  return state.content->tokens == tokens ? std::optional(found->second) : std::nullopt;
}

bool block_pool::holds(const base::digest& key, const block_tokens& tokens) const {
  return find(key, tokens).has_value();
}

std::optional<std::int32_t> block_pool::share(const base::digest& key, const block_tokens& tokens) {
  const auto block = find(key, tokens);
  if (!block) return std::nullopt;
  block_state& state = states_[static_cast<std::size_t>(*block)];
  if (state.users++ == 0) {
    --free_blocks_;
    const auto of_tenant = kept_.find(state.content->tenant);
    of_tenant->second.erase(state.place);
    if (of_tenant->second.empty()) kept_.erase(of_tenant);
  }
  return block;
}

}  // namespace troupe::engine
