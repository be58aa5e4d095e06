#include "cli/engine_limits.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/entropy.hpp"
#include "engine/block_pool.hpp"
#include "engine/kv_cache.hpp"
#include "models/model_digest.hpp"

namespace troupe::cli {
namespace {

// Positions the model is made for: linear and dynamic scaling stretch what it was trained on.
std::int64_t made_for(const models::model_config& config) {
  const bool stretched = config.rope.type == models::rope_type::linear ||
                         config.rope.type == models::rope_type::dynamic;
  const double factor = stretched ? std::max(1.0, config.rope.factor) : 1.0;
  return static_cast<std::int64_t>(static_cast<double>(config.max_position_embeddings) * factor);
}

base::result<std::int64_t> choose_max_model_len(const model_flags& flags,
                                                const models::model_config& config,
                                                const workload& load) {
  if (flags.max_model_len > 0) {
    if (load.positions <= flags.max_model_len) return flags.max_model_len;
    return base::fail(base::error_code::invalid_argument, "cli",
                      "prompt and answer need " + std::to_string(load.positions) +
                          " positions; --max-model-len is " + std::to_string(flags.max_model_len));
  }
  const std::int64_t derived = made_for(config);
  if (load.positions > derived) {
    std::fprintf(stderr,
                 "troupe: warning: %lld positions are more than the %lld the model is "
                 "made for\n",
                 static_cast<long long>(load.positions), static_cast<long long>(derived));
  }
  return std::max(derived, load.positions);
}

// Bytes of a block on the rank that has most heads and layers.
std::int64_t largest_block_bytes(const model_flags& flags, const opened_model& opened) {
  std::int64_t largest = 1;
  for (int rank = 0; rank < world_size(flags); ++rank) {
    const models::placement where{.tp_rank = rank % flags.tensor_parallel_size,
                                  .tp_size = flags.tensor_parallel_size,
                                  .pp_rank = rank / flags.tensor_parallel_size,
                                  .pp_size = flags.pipeline_parallel_size};
    largest = std::max(
        largest, engine::kv_cache::block_bytes(opened.config, where, opened.profile.kv_cache));
  }
  return largest;
}

// What a rank may spend on its cache. On the CPU a quarter of the machine's memory over its ranks:
// pages cost nothing until a sequence uses them. On a GPU nine tenths of what it has in all (so
// that every rank comes to the same figure), shared by the ranks on it, less weights and scratch.
std::int64_t serving_cache_bytes(const model_flags& flags, const opened_model& opened) {
  const std::int64_t ranks = world_size(flags);
  std::int64_t device_bytes = 0;
  if (opened.device) {
    const auto memory = opened.device->memory();
    if (memory) device_bytes = static_cast<std::int64_t>(memory->total_bytes);
  }
  if (device_bytes == 0) return sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / 4 / ranks;
  constexpr std::int64_t scratch_bytes = std::int64_t{1} << 30;
  const std::int64_t neighbours = (ranks + opened.devices - 1) / opened.devices;
  const auto weights = static_cast<std::int64_t>(packed_bytes(opened)) / ranks;
  return device_bytes / 10 * 9 / neighbours - weights - scratch_bytes;
}

// A server without --kv-cache-memory: every sequence at full length, as far as there is memory.
std::int64_t serving_blocks(const model_flags& flags, const opened_model& opened,
                            std::int64_t max_model_len, std::int64_t block_bytes) {
  const std::int64_t one = engine::kv_blocks_for(max_model_len);
  return std::max(
      one, std::min(one * flags.max_num_seqs, serving_cache_bytes(flags, opened) / block_bytes));
}

std::int64_t choose_kv_blocks(const model_flags& flags, const opened_model& opened,
                              const workload& load, std::int64_t max_model_len) {
  if (opened.kv_cache_bytes > 0) return opened.kv_cache_bytes / largest_block_bytes(flags, opened);
  if (load.positions == 0) {
    return serving_blocks(flags, opened, max_model_len, largest_block_bytes(flags, opened));
  }
  return engine::kv_blocks_for(load.positions) * std::min(load.sequences, flags.max_num_seqs);
}

// The names of cached blocks are of no use to who has not this key, drawn anew in each life.
engine::prefix_cache_options prefix_cache_of(const model_flags& flags, const opened_model& opened) {
  engine::prefix_cache_options options{.enabled = flags.prefix_caching};
  for (std::size_t at = 0; options.enabled && at < options.key.size(); at += 8) {
    const auto bits = base::draw_seed();
    options.enabled = bits.has_value();
    if (bits) std::memcpy(options.key.data() + at, &*bits, sizeof *bits);
  }
  options.model = to_string(opened.profile);
  const auto digest = models::description_digest(opened.folder, opened.files);
  if (digest) options.model += "|" + base::to_hex(*digest);
  options.depends_on_length = opened.config.rope.type == models::rope_type::dynamic;
  return options;
}

}  // namespace

base::result<engine_limits> choose_limits(const model_flags& flags, const opened_model& opened,
                                          const workload& load) {
  TROUPE_TRY(max_model_len, choose_max_model_len(flags, opened.config, load));
  const std::int64_t blocks = choose_kv_blocks(flags, opened, load, max_model_len);
  if (blocks < 1) {
    return base::fail(base::error_code::invalid_argument, "cli",
                      "--kv-cache-memory is " + std::to_string(opened.kv_cache_bytes) +
                          " bytes; one block of 16 tokens takes " +
                          std::to_string(largest_block_bytes(flags, opened)) + " on a rank");
  }
  return engine_limits{.max_model_len = max_model_len, .kv_blocks = blocks};
}

engine::engine_options engine_options_of(const model_flags& flags, const opened_model& opened,
                                         const engine_limits& limits) {
  const std::int64_t chunk = flags.long_prefill_token_threshold > 0
                                 ? flags.long_prefill_token_threshold
                                 : flags.max_num_batched_tokens;
  return {.planner = {.max_num_batched_tokens = flags.max_num_batched_tokens,
                      .max_num_seqs = flags.max_num_seqs,
                      .prefill_chunk = chunk,
                      .blocks_per_group = limits.kv_blocks,
                      .groups = models::kv_groups(opened.config),
                      .prefix_cache = prefix_cache_of(flags, opened)},
          .eos_token_ids = opened.config.eos_token_ids,
          .max_model_len = limits.max_model_len,
          .vocab_size = opened.config.vocab_size,
          .plan_ahead = flags.async_scheduling};
}

std::uint64_t packed_bytes(const opened_model& opened) {
  using enum kernels::quantisation;
  const kernels::quantisation kept = opened.profile.kept;
  std::uint64_t bytes = 0;
  for (const models::tensor_info& tensor : opened.files.tensors()) {
    const std::uint64_t elements = tensor.bytes / std::max<std::size_t>(1, size_of(tensor.dtype));
    const bool float8 = kept == float8_blocks && tensor.dtype == models::stored_dtype::float8_e4m3;
    if (kept == int8_runs || float8) {
      bytes += elements;
    } else if (kept == int4_groups) {
      bytes += elements * 9 / 16;  // four bits, and a scale of 16 for each 32
    } else {
      bytes += elements * size_of(opened.profile.weights);
    }
  }
  return bytes;
}

}  // namespace troupe::cli
