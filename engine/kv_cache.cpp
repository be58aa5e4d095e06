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

base::result<kv_cache> kv_cache::allocate(const models::model_config& config,
                                          models::placement where, kernels::dtype type,
                                          std::int64_t blocks) {
  kv_cache cache;
  const std::int64_t layers = models::stage_layers(config, where).size();
  const std::int64_t heads = models::rank_kv_heads(config, where).size();
  const std::int64_t half = heads * blocks * extent_bytes(config, type);
  TROUPE_TRY(memory, kernels::buffer::allocate(static_cast<std::size_t>(layers * 2 * half),
                                               "the KV cache"));
  cache.memory_ = std::move(memory);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::byte* const keys = cache.memory_.data() + layer * 2 * half;
    cache.layers_.push_back({.keys = {kernels::device_kind::cpu, keys},
                             .values = {kernels::device_kind::cpu, keys + half},
                             .type = type,
                             .heads = heads,
                             .head_dim = config.head_dim,
                             .blocks = blocks});
  }
  return cache;
}

}  // namespace troupe::engine
