// Stores the new tokens' keys and values in the paged cache.
#pragma once

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Converts to the cache's dtype (bfloat16: round to nearest even) and stores token t at
// args.slots[t] = block * 16 + place in the block, of every cache head.
// Shape: args.keys and args.values float32 [tokens][heads][head_dim], rows strided; heads and
// head_dim of args.cache; slots [tokens], different from each other, below 16 * cache.blocks.
// Cost: one read of keys and values, one write of their cache entries.
void write_kv(instruction_path path, thread_pool& pool, const write_kv_args& args);

// Plain loops.
void write_kv_reference(const write_kv_args& args);

}  // namespace troupe::kernels
