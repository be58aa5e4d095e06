#include "engine/kv_cache.hpp"

namespace troupe::engine {
namespace {

std::int64_t extent_bytes(const models::model_config& config, kernels::dtype type) {
  return kernels::kv_block_tokens * config.head_dim * static_cast<std::int64_t>(size_of(type));
}

}  // namespace

std::int64_t kv_cache::block_bytes(const models::model_config& config, models::placement where,
                                   kernels::dtype type) {
  const std::int64_t layers = models::stage_layers(config, where).size();
  const std::int64_t heads = models::rank_kv_heads(config, where).size();
  return layers * heads * 2 * extent_bytes(config, type);
}

base::result<kv_cache> kv_cache::allocate(const request& of) {
  kv_cache cache;
  const std::int64_t layers = models::stage_layers(of.config, of.where).size();
  const std::int64_t heads = models::rank_kv_heads(of.config, of.where).size();
  const std::int64_t half = heads * of.blocks * extent_bytes(of.config, of.type);
  TROUPE_TRY(memory, kernels::allocate_on(of.on, static_cast<std::size_t>(layers * 2 * half),
                                          "the KV cache"));
  cache.memory_ = std::move(memory);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::byte* const keys = cache.memory_.data() + layer * 2 * half;
    cache.layers_.push_back({.keys = {cache.memory_.device(), keys},
                             .values = {cache.memory_.device(), keys + half},
                             .type = of.type,
                             .heads = heads,
                             .head_dim = of.config.head_dim,
                             .blocks = of.blocks});
  }
  return cache;
}

}  // namespace troupe::engine
