// How attention() divides its work, and what a kernel for one instruction set provides.
//
// The columns of a sequence and cache head are its (row, query head) pairs, rows first: all share
// the K and V of that cache head. A work item is a run of columns and a run of canonical splits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

#include "base/check.hpp"
#include "kernels/attention/attention.hpp"

namespace troupe::kernels::attention_detail {

// Positions of one softmax step. 64 of head_dim 128 in bfloat16 are 32 KiB of K and V: they stay in
// the first-level cache while all columns of an item pass over them.
inline constexpr std::int64_t group_tokens = 64;
// Positions after which a query's running state is folded into its total.
inline constexpr std::int64_t split_tokens = 1024;
// Columns of an item: enough that re-laying a group of K and V is cheap beside using it.
inline constexpr std::int64_t item_columns_max = 128;
inline constexpr std::int64_t head_dim_max = 1024;
inline constexpr std::int64_t column_pad = 32;  // two AMX tiles

static_assert(split_tokens % group_tokens == 0 && group_tokens % kv_block_tokens == 0);

[[nodiscard]] constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct work_item {
  const sequence_rows* sequence = nullptr;
  std::int64_t kv_head = 0;
  std::span<const std::int32_t> heads;  // query heads of kv_head, ascending
  std::int64_t column_begin = 0;
  std::int64_t columns = 0;
  std::int64_t split_begin = 0;  // splits that some column sees
  std::int64_t split_end = 0;
  std::int64_t partials_begin = 0;  // of a divided item: offset of its states among the partials

  // Elements before K (or V) of the absolute block `index`, which must be visible to some column.
  [[nodiscard]] std::int64_t block_offset(const kv_view& cache, std::int64_t index) const {
    const std::int64_t block = sequence->block_table[static_cast<std::size_t>(index)];
    return (kv_head * cache.blocks + block) * kv_block_tokens * cache.head_dim;
  }
};

// The first position that a query at `position` sees.
[[nodiscard]] inline std::int64_t first_seen(const attention_args& args, std::int64_t position) {
  return args.window.has_value() ? std::max<std::int64_t>(0, position - *args.window + 1) : 0;
}

// One thread's view of its item. Arrays have columns_padded elements; padding columns see nothing.
struct column_block {
  const attention_args& args;
  const work_item& item;
  const work_item* next;             // what this thread likely takes then, or null
  std::span<std::int32_t> position;  // last position seen; -1 in padding
  std::span<std::int32_t> first;     // first position seen; 0 in padding

  [[nodiscard]] std::int64_t row(std::int64_t column) const {
    return item.sequence->first_row +
           (item.column_begin + column) / static_cast<std::int64_t>(item.heads.size());
  }
  [[nodiscard]] std::int64_t head(std::int64_t column) const {
    return item.heads[static_cast<std::size_t>((item.column_begin + column) %
                                               static_cast<std::int64_t>(item.heads.size()))];
  }
  [[nodiscard]] const float* query(std::int64_t column) const {
    return args.query.row<const float>(row(column)) + head(column) * args.cache.head_dim;
  }
  // Elements before K (or V) of the absolute block `index`, which must be visible to some column.
  [[nodiscard]] std::int64_t block_offset(std::int64_t index) const {
    return item.block_offset(args.cache, index);
  }
};

// Absolute positions of one group that some column of the item sees: [begin, end), within
// [first, first + group_tokens). Some columns may see only a part, or nothing, of it.
struct token_range {
  std::int64_t first = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// A state: float maximum[columns_padded], sum[columns_padded], then outputs in a layout of the
// kernel's own. Empty: maximum -infinity, all else +0.
struct block_kernel {
  std::int64_t (*output_floats)(std::int64_t columns_padded, std::int64_t head_dim);
  std::size_t (*work_bytes)(std::int64_t columns_padded, std::int64_t head_dim);
  // Before an item's first step, on its thread; `work` is 64-byte aligned.
  void (*begin)(const column_block& block, std::byte* work);
  void (*step)(const column_block& block, const token_range& tokens, std::byte* work, float* state);
  void (*fold)(const column_block& block, float* total, const float* part);
  void (*write)(const column_block& block, const float* total);
  void (*end)();  // after an item's last step, or null
};

// The kernels; null where this build has none for the path.
[[nodiscard]] const block_kernel* float32_kernel(instruction_path path, dtype cache);
// The AMX kernel for an item of so many columns: all of them give a query the same bits.
[[nodiscard]] const block_kernel* amx_kernel(std::int64_t columns);
[[nodiscard]] const block_kernel* avx512_bf16_kernel(std::int64_t columns);  // likewise

// Grow-only, 64-byte aligned, uninitialised.
class aligned_bytes {
 public:
  [[nodiscard]] std::byte* reserve(std::size_t bytes) {
    if (bytes > size_) {
      data_.reset();
      data_.reset(static_cast<std::byte*>(::operator new(bytes, alignment, std::nothrow)));
      TROUPE_CHECK(data_ != nullptr);
      size_ = bytes;
    }
    return data_.get();
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, alignment); }
  };
  std::unique_ptr<std::byte, release> data_;
  std::size_t size_ = 0;
};

}  // namespace troupe::kernels::attention_detail

namespace troupe::kernels {

struct attention_scratch::memory {
  std::vector<std::int32_t> heads;       // query heads, by cache head
  std::vector<std::int32_t> heads_ends;  // per cache head: end of its run in `heads`
  std::vector<attention_detail::work_item> items;
  std::vector<attention_detail::work_item> pieces;  // divided items: one piece a split
  attention_detail::aligned_bytes threads;
  attention_detail::aligned_bytes partials;
};

}  // namespace troupe::kernels
