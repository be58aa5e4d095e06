// Causal attention over the paged cache, for prefill chunks and single tokens alike.
//
// Online softmax: each query takes the cache in groups of 64 absolute positions, in ascending
// order, from the group of the first position it sees. Every 1024 absolute positions its running
// maximum, sum and output start anew and are folded into a total, in ascending order, so that a
// long context may be split over threads without changing a bit. Nothing depends on the rows, heads
// or sequences beside a query: a position that it does not see counts as an exact zero, and adding
// zeros leaves a result alone (outputs that are zero come out as +0, NaN as the one quiet NaN).
//
// Four kernels: over a bfloat16 cache AMX tiles for amx_bf16 and the same tiles by VDPBF16PS for
// avx512_bf16 (queries and probabilities are rounded to bfloat16); float32 multiply-add with 16
// lanes for avx512 and for float32 caches under the two, and with 8 lanes for avx2. Accumulation is
// float32 in all. Source: Milakov
// and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao, "Flash- Attention-2",
// 2023.
//
//   kernels::attention_scratch scratch;  // lives as long as the ops object
//   kernels::attention(path, pool, args, scratch);
#pragma once

#include <memory>

#include "kernels/numerics.hpp"
#include "kernels/ops.hpp"
#include "kernels/thread_pool.hpp"

namespace troupe::kernels {

// Memory that attention() keeps from call to call; it grows to what the largest call needed: about
// 0.5 MiB a thread at head_dim 128. Serves one call at a time.
class attention_scratch {
 public:
  attention_scratch();
  attention_scratch(attention_scratch&&) noexcept;
  attention_scratch& operator=(attention_scratch&&) noexcept;
  ~attention_scratch();

  struct memory;  // attention_work.hpp
  [[nodiscard]] memory& parts() noexcept { return *memory_; }

 private:
  std::unique_ptr<memory> memory_;
};

// Shape: as attention_args says; head_dim 1 .. 1024. query.row_stride and output.row_stride may be
// larger than heads * head_dim. Every row of a sequence sees its own position, so its K and V must
// be written before.
// Cost: 4 * head_dim operations for each query and position seen; K and V are read once for each
// 128 / (query heads of a cache head) rows.
void attention(instruction_path path, thread_pool& pool, const attention_args& args,
               attention_scratch& scratch);
void attention(instruction_path path, thread_pool& pool, const attention_args& args);

// The same in double, one query at a time, the softmax taken over all positions at once.
void attention_reference(const attention_args& args);

}  // namespace troupe::kernels
