#include "kernels/attention/attention.hpp"

#include <algorithm>
#include <limits>

#include "kernels/attention/attention_work.hpp"

namespace troupe::kernels {

attention_scratch::attention_scratch() : memory_(std::make_unique<memory>()) {}
attention_scratch::attention_scratch(attention_scratch&&) noexcept = default;
attention_scratch& attention_scratch::operator=(attention_scratch&&) noexcept = default;
attention_scratch::~attention_scratch() = default;

namespace {

using namespace attention_detail;

void check(const attention_args& args) {
  const kv_view& cache = args.cache;
  TROUPE_CHECK(cache.head_dim >= 1 && cache.head_dim <= head_dim_max);
  TROUPE_CHECK(args.query.type == dtype::float32);
  TROUPE_CHECK(args.query.columns() ==
               static_cast<std::int64_t>(args.kv_head_of.size()) * cache.head_dim);
  TROUPE_CHECK(args.output.columns() == args.query.columns());
  TROUPE_CHECK(!args.window.has_value() || *args.window >= 1);
  for (const std::int32_t head : args.kv_head_of) TROUPE_CHECK(head >= 0 && head < cache.heads);
  for (const sequence_rows& sequence : args.sequences) {
    TROUPE_CHECK(sequence.rows >= 0 && sequence.first_row >= 0 && sequence.first_position >= 0);
    if (sequence.rows == 0) continue;
    TROUPE_CHECK(sequence.first_row + sequence.rows <= args.query.rows());
    TROUPE_CHECK(sequence.first_row + sequence.rows <= args.output.rows());
    const std::int64_t end = sequence.first_position + sequence.rows;
    TROUPE_CHECK(end < std::numeric_limits<std::int32_t>::max());
    const std::int64_t blocks = (end + kv_block_tokens - 1) / kv_block_tokens;
    TROUPE_CHECK(static_cast<std::int64_t>(sequence.block_table.size()) >= blocks);
    const std::int64_t seen =
        args.window.has_value()
            ? std::max<std::int64_t>(0, sequence.first_position - *args.window + 1)
            : 0;
    for (std::int64_t block = seen / kv_block_tokens; block < blocks; ++block) {
      const std::int32_t entry = sequence.block_table[static_cast<std::size_t>(block)];
      TROUPE_CHECK(entry >= 0 && entry < cache.blocks);
    }
  }
}

// Query heads sorted by cache head, for any mapping.
void group_heads(const attention_args& args, attention_scratch::memory& memory) {
  memory.heads.clear();
  memory.heads_ends.clear();
  for (std::int64_t kv_head = 0; kv_head < args.cache.heads; ++kv_head) {
    for (std::size_t head = 0; head < args.kv_head_of.size(); ++head) {
      if (args.kv_head_of[head] == kv_head) {
        memory.heads.push_back(static_cast<std::int32_t>(head));
      }
    }
    memory.heads_ends.push_back(static_cast<std::int32_t>(memory.heads.size()));
  }
}

// Latest columns first: they see most, and the longest items should not come last.
void add_items(const attention_args& args, const sequence_rows& sequence, std::int64_t kv_head,
               attention_scratch::memory& memory) {
  const auto index = static_cast<std::size_t>(kv_head);
  const auto begin = static_cast<std::size_t>(kv_head == 0 ? 0 : memory.heads_ends[index - 1]);
  const auto heads =
      std::span<const std::int32_t>(memory.heads)
          .subspan(begin, static_cast<std::size_t>(memory.heads_ends[index]) - begin);
  const auto group = static_cast<std::int64_t>(heads.size());
  const std::int64_t columns = sequence.rows * group;
  for (std::int64_t end = columns; end > 0;) {
    const std::int64_t first = (end - 1) / item_columns_max * item_columns_max;
    const std::int64_t last_position = sequence.first_position + (end - 1) / group;
    const std::int64_t first_position = sequence.first_position + first / group;
    memory.items.push_back({.sequence = &sequence,
                            .kv_head = kv_head,
                            .heads = heads,
                            .column_begin = first,
                            .columns = end - first,
                            .split_begin = first_seen(args, first_position) / split_tokens,
                            .split_end = last_position / split_tokens + 1});
    end = first;
  }
}

const block_kernel& kernel_for(instruction_path path, dtype cache, std::int64_t columns) {
  const block_kernel* kernel = nullptr;
  if (cache == dtype::bfloat16 && path == instruction_path::amx_bf16) {
    kernel = amx_kernel(columns);
  } else if (cache == dtype::bfloat16 && path == instruction_path::avx512_bf16) {
    kernel = avx512_bf16_kernel(columns);
  } else {
    kernel = float32_kernel(path, cache);
  }
  TROUPE_CHECK(kernel != nullptr);
  return *kernel;
}

// The sizes of one call: every item's memory is that of the largest.
struct layout {
  instruction_path path;
  std::int64_t columns_padded = 0;
  std::int64_t state_floats = 0;
  std::size_t thread_bytes = 0;

  layout(instruction_path with, const attention_args& args, std::int64_t columns)
      : path(with), columns_padded(round_up(columns, column_pad)) {
    const std::int64_t head_dim = args.cache.head_dim;
    const block_kernel& kernel = kernel_for(path, args.cache.type, columns);
    state_floats =
        round_up(2 * columns_padded + kernel.output_floats(columns_padded, head_dim), 16);
    thread_bytes = static_cast<std::size_t>(2 * columns_padded) * sizeof(std::int32_t) +
                   2 * static_cast<std::size_t>(state_floats) * sizeof(float) +
                   kernel.work_bytes(columns_padded, head_dim);
    // A line of distance, so that threads share none.
    thread_bytes =
        static_cast<std::size_t>(round_up(static_cast<std::int64_t>(thread_bytes), 64)) + 64;
  }
};

// One thread's memory, cut up.
struct thread_memory {
  std::span<std::int32_t> position;
  std::span<std::int32_t> first;
  float* part = nullptr;
  float* total = nullptr;
  std::byte* work = nullptr;

  thread_memory(std::byte* bytes, const layout& sizes) {
    const auto columns = static_cast<std::size_t>(sizes.columns_padded);
    auto* integers = reinterpret_cast<std::int32_t*>(bytes);
    position = {integers, columns};
    first = {integers + columns, columns};
    part = reinterpret_cast<float*>(integers + 2 * columns);
    total = part + sizes.state_floats;
    work = reinterpret_cast<std::byte*>(total + sizes.state_floats);
  }
};

// An item on a thread: its columns and its kernel.
struct thread_item : column_block {
  const block_kernel& kernel;
};

thread_item make_block(const attention_args& args, const work_item& item, const layout& sizes,
                       const thread_memory& memory, const work_item* next = nullptr) {
  const auto padded = static_cast<std::size_t>(round_up(item.columns, column_pad));
  const auto group = static_cast<std::int64_t>(item.heads.size());
  thread_item block{{args, item, next, memory.position.first(padded), memory.first.first(padded)},
                    kernel_for(sizes.path, args.cache.type, item.columns)};
  for (std::size_t column = 0; column < padded; ++column) {
    const auto index = static_cast<std::int64_t>(column);
    const bool real = index < item.columns;
    const std::int64_t position =
        item.sequence->first_position + (item.column_begin + index) / group;
    block.position[column] = real ? static_cast<std::int32_t>(position) : -1;
    block.first[column] = real ? static_cast<std::int32_t>(first_seen(args, position)) : 0;
  }
  return block;
}

void clear(float* state, const thread_item& block) {
  const auto columns_padded = static_cast<std::int64_t>(block.position.size());
  std::fill_n(state, columns_padded, -std::numeric_limits<float>::infinity());
  const std::int64_t outputs =
      block.kernel.output_floats(columns_padded, block.args.cache.head_dim);
  std::fill_n(state + columns_padded, columns_padded + outputs, 0.0F);
}

// All groups of one split, from the empty state.
void run_split(const thread_item& block, std::int64_t split, std::byte* work, float* state) {
  clear(state, block);
  const auto last_column = static_cast<std::size_t>(block.item.columns - 1);
  const std::int64_t begin = std::max<std::int64_t>(block.first[0], split * split_tokens);
  const std::int64_t end =
      std::min<std::int64_t>(block.position[last_column] + 1, (split + 1) * split_tokens);
  for (std::int64_t first = begin / group_tokens * group_tokens; first < end;
       first += group_tokens) {
    block.kernel.step(block,
                      {.first = first,
                       .begin = std::max(begin, first),
                       .end = std::min(end, first + group_tokens)},
                      work, state);
  }
}

void run_item(const attention_args& args, const work_item& item, const work_item* next,
              const layout& sizes, std::byte* bytes) {
  const thread_memory memory(bytes, sizes);
  const thread_item block = make_block(args, item, sizes, memory, next);
  block.kernel.begin(block, memory.work);
  if (item.split_end - item.split_begin == 1) {  // folding it into nothing would change nothing
    run_split(block, item.split_begin, memory.work, memory.part);
    block.kernel.write(block, memory.part);
  } else {
    clear(memory.total, block);
    for (std::int64_t split = item.split_begin; split < item.split_end; ++split) {
      run_split(block, split, memory.work, memory.part);
      block.kernel.fold(block, memory.total, memory.part);
    }
    block.kernel.write(block, memory.total);
  }
  if (block.kernel.end != nullptr) block.kernel.end();
}

// One split of a divided item, left among the partials.
void run_piece(const attention_args& args, const work_item& piece, const layout& sizes,
               std::byte* bytes, float* partials) {
  const thread_memory memory(bytes, sizes);
  const thread_item block = make_block(args, piece, sizes, memory);
  block.kernel.begin(block, memory.work);
  run_split(block, piece.split_begin, memory.work,
            partials + piece.partials_begin * sizes.state_floats);
  if (block.kernel.end != nullptr) block.kernel.end();
}

void fold_pieces(const attention_args& args, const work_item& item, const layout& sizes,
                 std::byte* bytes, const float* partials) {
  const thread_memory memory(bytes, sizes);
  const thread_item block = make_block(args, item, sizes, memory);
  clear(memory.total, block);
  for (std::int64_t split = item.split_begin; split < item.split_end; ++split) {
    const std::int64_t index = item.partials_begin + split - item.split_begin;
    block.kernel.fold(block, memory.total, partials + index * sizes.state_floats);
  }
  block.kernel.write(block, memory.total);
}

// Divides every item into its splits. Returns the number of pieces.
std::int64_t divide(attention_scratch::memory& memory) {
  memory.pieces.clear();
  for (work_item& item : memory.items) {
    item.partials_begin = static_cast<std::int64_t>(memory.pieces.size());
    for (std::int64_t split = item.split_begin; split < item.split_end; ++split) {
      work_item piece = item;
      piece.partials_begin = static_cast<std::int64_t>(memory.pieces.size());
      piece.split_begin = split;
      piece.split_end = split + 1;
      memory.pieces.push_back(piece);
    }
  }
  return static_cast<std::int64_t>(memory.pieces.size());
}

}  // namespace

void attention(instruction_path path, thread_pool& pool, const attention_args& args,
               attention_scratch& scratch) {
  check(args);
  attention_scratch::memory& memory = scratch.parts();
  group_heads(args, memory);
  memory.items.clear();
  std::int64_t columns = 0;
  for (const sequence_rows& sequence : args.sequences) {
    for (std::int64_t kv_head = 0; kv_head < args.cache.heads; ++kv_head) {
      add_items(args, sequence, kv_head, memory);
    }
  }
  std::int64_t splits = 0;
  for (const work_item& item : memory.items) {
    columns = std::max(columns, item.columns);
    splits = std::max(splits, item.split_end - item.split_begin);
  }
  if (memory.items.empty()) return;

  const layout sizes(path, args, columns);
  const auto threads = static_cast<std::size_t>(pool.threads());
  std::byte* const bytes = memory.threads.reserve(threads * sizes.thread_bytes);
  const auto of_thread = [&](int thread) {
    return bytes + static_cast<std::size_t>(thread) * sizes.thread_bytes;
  };
  const auto items = static_cast<std::int64_t>(memory.items.size());

  // Too few items to keep the threads evenly busy: long contexts are divided too.
  if (threads > 1 && splits > 1 && items < 2 * static_cast<std::int64_t>(threads)) {
    const std::int64_t pieces = divide(memory);
    auto* partials = reinterpret_cast<float*>(memory.partials.reserve(
        static_cast<std::size_t>(pieces * sizes.state_floats) * sizeof(float)));
    pool.parallel_for(pieces, [&](std::int64_t index, int thread) {
      run_piece(args, memory.pieces[static_cast<std::size_t>(index)], sizes, of_thread(thread),
                partials);
    });
    pool.parallel_for(items, [&](std::int64_t index, int thread) {
      fold_pieces(args, memory.items[static_cast<std::size_t>(index)], sizes, of_thread(thread),
                  partials);
    });
    return;
  }
  pool.parallel_for(items, [&](std::int64_t index, int thread) {
    const std::int64_t then = index + pool.threads();
    run_item(args, memory.items[static_cast<std::size_t>(index)],
             then < items ? &memory.items[static_cast<std::size_t>(then)] : nullptr, sizes,
             of_thread(thread));
  });
}

void attention(instruction_path path, thread_pool& pool, const attention_args& args) {
  attention_scratch scratch;
  attention(path, pool, args, scratch);
}

}  // namespace troupe::kernels
