// The same bits for a query whatever is computed beside it, on every instruction path of this CPU.
#include <gtest/gtest.h>

#include <bit>

#include "kernels/attention/attention.hpp"
#include "tests/kernels/attention_case.hpp"

namespace troupe::kernels {
namespace {

using attention_testing::attention_case;
using attention_testing::attention_problem;
using attention_testing::chunk;
using attention_testing::run_case;

std::vector<instruction_path> paths() { return supported_paths(dtype::bfloat16); }

// Rows [0, total) of one sequence, `size` at a time. Each chunk has a cache of its own, poisoned
// above the chunk's last position and below its window.
std::vector<std::byte> in_chunks(attention_case of, std::int64_t total, std::int64_t size,
                                 instruction_path path) {
  std::vector<std::byte> all;
  for (std::int64_t begin = 0; begin < total; begin += size) {
    of.chunks = {{begin, std::min(size, total - begin)}};
    of.placement = static_cast<std::uint64_t>(begin + size);
    const std::vector<std::byte> rows = run_case(of, path);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

struct shape {
  std::int64_t group = 2;
  std::int64_t head_dim = 32;
  std::int64_t total = 150;
  std::optional<std::int64_t> window = std::nullopt;
};

const shape shapes[] = {{.group = 2, .head_dim = 128},
                        {.group = 1, .head_dim = 64},
                        {.group = 7, .head_dim = 20},
                        {.group = 3, .head_dim = 80, .window = 33},
                        {.group = 4, .head_dim = 17, .window = 16},
                        {.group = 2, .head_dim = 64, .window = 64},
                        {.group = 5, .head_dim = 1, .window = 1},
                        {.group = 40, .head_dim = 32, .total = 70, .window = 49},
                        {.group = 1, .head_dim = 16, .total = 1100},
                        {.group = 1, .head_dim = 16, .total = 1100, .window = 1030}};

TEST(AttentionBits, DoNotDependOnTheChunk) {
  for (const shape& s : shapes) {
    for (const instruction_path path : paths()) {
      for (const dtype cache : {dtype::bfloat16, dtype::float32}) {
        const attention_case of{.kv_heads = 1,
                                .group = s.group,
                                .head_dim = s.head_dim,
                                .window = s.window,
                                .cache = cache,
                                .seed = 3};
        const std::vector<std::byte> whole = in_chunks(of, s.total, s.total, path);
        for (const std::int64_t size : {1, 7, 16, 64}) {
          EXPECT_TRUE(in_chunks(of, s.total, size, path) == whole)
              << of.describe() << " chunk " << size << " path " << to_string(path);
        }
      }
    }
  }
}

TEST(AttentionBits, DoNotDependOnTheBatch) {
  const std::vector<chunk> batch{{0, 40}, {17, 1}, {100, 3}, {63, 1}, {1100, 1}, {5, 64}, {0, 1}};
  for (const instruction_path path : paths()) {
    for (const dtype cache : {dtype::bfloat16, dtype::float32}) {
      for (const std::int64_t head_dim : {64, 20}) {
        attention_case of{.group = 3, .head_dim = head_dim, .chunks = batch, .cache = cache};
        attention_problem together(of);
        together.run(path);
        for (std::size_t i = 0; i < batch.size(); ++i) {
          // Alone under its own index, since contents depend on it: the others have no rows.
          attention_case alone = of;
          for (std::size_t j = 0; j < batch.size(); ++j) {
            if (j != i) alone.chunks[j].rows = 0;
          }
          alone.placement = 50 + i;
          attention_problem problem(alone);
          problem.run(path);
          EXPECT_TRUE(problem.output_of(i) == together.output_of(i))
              << of.describe() << " sequence " << i << " path " << to_string(path);
        }
      }
    }
  }
}

TEST(AttentionBits, DoNotDependOnTheThreads) {
  // Few heads and long contexts: more threads than items divide the contexts.
  const std::vector<std::vector<chunk>> batches{{{5000, 1}},          {{1500, 30}}, {{0, 300}},
                                                {{4095, 1}, {10, 1}}, {{1024, 1}},  {{1023, 1}}};
  for (const std::vector<chunk>& batch : batches) {
    for (const instruction_path path : paths()) {
      for (const dtype cache : {dtype::bfloat16, dtype::float32}) {
        for (const std::optional<std::int64_t> window :
             {std::optional<std::int64_t>(), std::optional<std::int64_t>(2500)}) {
          attention_case of{.kv_heads = 1,
                            .group = 3,
                            .head_dim = 32,
                            .chunks = batch,
                            .window = window,
                            .cache = cache};
          const std::vector<std::byte> one = run_case(of, path);
          for (const int threads : {2, 3, 8}) {
            of.threads = threads;
            EXPECT_TRUE(run_case(of, path) == one)
                << of.describe() << " threads " << threads << " path " << to_string(path);
          }
        }
      }
    }
  }
}

TEST(AttentionBits, DoNotDependOnTheHeadsBeside) {
  // A rank of a tensor-parallel group holds some heads only: columns of the whole.
  for (const instruction_path path : paths()) {
    attention_case of{.kv_heads = 4, .group = 2, .head_dim = 20, .chunks = {{50, 30}}};
    attention_problem whole(of);
    const attention_args args = whole.args();
    thread_pool pool({.threads = 2});
    attention(path, pool, args);
    const std::vector<std::byte> expected = whole.output_of(0);
    for (std::int64_t kv_head = 0; kv_head < 4; ++kv_head) {
      // The query's and the cache's slice of one head.
      attention_args part = whole.args();
      const std::int64_t elements = part.cache.blocks * kv_block_tokens * 20;
      part.cache.keys.address += kv_head * elements * 2;
      part.cache.values.address += kv_head * elements * 2;
      part.cache.heads = 1;
      const std::vector<std::int32_t> kv_head_of{0, 0};
      part.kv_head_of = kv_head_of;
      part.query = as_heads(column_slice(part.query, kv_head * 40, 40), 20);
      part.output = as_heads(column_slice(part.output, kv_head * 40, 40), 20);
      attention(path, pool, part);
      const std::vector<std::byte> got = whole.output_of(0);
      for (std::size_t row = 0; row < 30; ++row) {
        const std::size_t at = (row * 160 + static_cast<std::size_t>(kv_head) * 40) * 4;
        EXPECT_EQ(std::memcmp(got.data() + at, expected.data() + at, 160), 0)
            << "head " << kv_head << " row " << row << " path " << to_string(path);
      }
    }
  }
}

TEST(AttentionBits, DoNotDependOnScratchFromOtherCalls) {
  thread_pool pool({.threads = 2});
  for (const instruction_path path : paths()) {
    attention_scratch scratch;
    for (const attention_case& of :
         {attention_case{.head_dim = 128, .chunks = {{0, 200}}},
          attention_case{.head_dim = 20, .chunks = {{3, 1}}},
          attention_case{.head_dim = 33, .chunks = {{2000, 2}}, .cache = dtype::float32},
          attention_case{.kv_heads = 1, .head_dim = 96, .chunks = {{0, 31}}, .window = 5}}) {
      attention_problem problem(of);
      attention(path, pool, problem.args(), scratch);
      EXPECT_TRUE(problem.output_of(0) == run_case(of, path))
          << of.describe() << " path " << to_string(path);
    }
  }
}

// A value of V or K that is not finite reaches the queries that see its position, and no other.
TEST(AttentionBits, OfAQueryAreFreeOfPositionsItDoesNotSee) {
  for (const std::optional<std::int64_t> window :
       {std::optional<std::int64_t>(), std::optional<std::int64_t>(20)}) {
    for (const std::int64_t head_dim : {20, 64}) {
      for (const instruction_path path : paths()) {
        for (const std::uint32_t bits : {0x7FC0U, 0x7F80U, 0xFF80U, 0x7F81U}) {
          attention_case of{
              .group = 3, .head_dim = head_dim, .chunks = {{0, 90}}, .window = window};
          const std::vector<std::byte> clean = run_case(of, path);
          for (const std::int64_t position : {0, 5, 40, 64, 89}) {
            attention_problem problem(of);
            problem.overwrite(0, position, bits);
            const std::vector<std::byte> result = problem.run(path);
            const std::size_t row_bytes = result.size() / 90;
            for (std::int64_t row = 0; row < 90; ++row) {
              const bool sees = row >= position && row < position + window.value_or(1000);
              const auto* got = result.data() + static_cast<std::size_t>(row) * row_bytes;
              const auto* want = clean.data() + static_cast<std::size_t>(row) * row_bytes;
              if (!sees) {
                ASSERT_EQ(std::memcmp(got, want, row_bytes), 0)
                    << of.describe() << " poison at " << position << " reached row " << row
                    << " path " << to_string(path);
                continue;
              }
              std::uint32_t first = 0;
              std::memcpy(&first, got, 4);
              ASSERT_EQ(first, 0x7FC00000U)
                  << of.describe() << " poison at " << position << " missed row " << row;
            }
          }
        }
      }
    }
  }
}

// The same, where V alone is poisoned: chunk invariance must hold then too.
TEST(AttentionBits, DoNotDependOnTheChunkWhereValuesAreNotFinite) {
  for (const instruction_path path : paths()) {
    for (const std::optional<std::int64_t> window :
         {std::optional<std::int64_t>(), std::optional<std::int64_t>(21)}) {
      for (const std::uint16_t bits :
           {std::uint16_t{0x7FC0}, std::uint16_t{0x7F80}, std::uint16_t{0xFF80}}) {
        const attention_case of{
            .kv_heads = 1, .head_dim = 48, .chunks = {{0, 100}}, .window = window};
        const auto poisoned = [&](chunk rows) {
          attention_case one = of;
          one.chunks = {rows};
          attention_problem problem(one);
          const attention_args args = problem.args();
          for (const std::int64_t position : {3, 37, 38, 70}) {
            if (position >= rows.first_position + rows.rows) continue;
            if (window && position <= rows.first_position - *window) continue;
            const std::int64_t block =
                args.sequences[0].block_table[static_cast<std::size_t>(position / 16)];
            auto* values = reinterpret_cast<std::uint16_t*>(args.cache.values.address);
            values[(block * 16 + position % 16) * 48 + position % 48] = bits;
          }
          return problem.run(path);
        };
        const std::vector<std::byte> whole = poisoned({0, 100});
        std::vector<std::byte> single;
        for (std::int64_t row = 0; row < 100; ++row) {
          const std::vector<std::byte> one = poisoned({row, 1});
          single.insert(single.end(), one.begin(), one.end());
        }
        EXPECT_TRUE(whole == single)
            << of.describe() << " bits " << bits << " path " << to_string(path);
      }
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
