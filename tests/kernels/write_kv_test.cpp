#include "kernels/write_kv/write_kv.hpp"

#include <limits>

#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

struct cache_memory {
  cache_memory(std::int64_t heads, std::int64_t head_dim, std::int64_t blocks, dtype type)
      : view{{}, {}, type, heads, head_dim, blocks} {
    const auto bytes =
        static_cast<std::size_t>(heads * blocks * kv_block_tokens * head_dim) * size_of(type);
    keys.assign(bytes, std::byte{0xA5});
    values.assign(bytes, std::byte{0x5A});
    view.keys.address = keys.data();
    view.values.address = values.data();
  }
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
  kv_view view;
};

void expect_reference_bytes(instruction_path path, dtype type, std::int64_t tokens,
                            std::int64_t heads, std::int64_t head_dim, int threads) {
  thread_pool pool({.threads = threads});
  const std::int64_t blocks = tokens / 8 + 3;
  cache_memory actual(heads, head_dim, blocks, type);
  cache_memory expected(heads, head_dim, blocks, type);
  padded_matrix<> keys(tokens, heads * head_dim, 5);
  padded_matrix<> values(tokens, heads * head_dim, 9);
  keys.fill(31, 4.0);
  values.fill(32, 1e-3);
  std::vector<std::int64_t> slots;  // 7 is coprime to every 16 * blocks here but those of 7 blocks
  const std::int64_t places = blocks * kv_block_tokens;
  const std::int64_t step = blocks % 7 == 0 ? 11 : 7;
  for (std::int64_t t = 0; t < tokens; ++t) slots.push_back((5 + t * step) % places);
  write_kv(path, pool,
           {.keys = as_heads(keys.view(), head_dim),
            .values = as_heads(values.view(), head_dim),
            .cache = actual.view,
            .slots = slots});
  write_kv_reference({.keys = as_heads(keys.view(), head_dim),
                      .values = as_heads(values.view(), head_dim),
                      .cache = expected.view,
                      .slots = slots});
  // All bytes: slots that no token goes to keep what they held.
  EXPECT_TRUE(actual.keys == expected.keys && actual.values == expected.values)
      << to_string(path) << " " << to_string(type) << " tokens " << tokens << " heads " << heads
      << " head_dim " << head_dim;
}

TEST(WriteKv, EqualsReferenceByteForByteOnEveryPath) {
  for (const instruction_path path : paths()) {
    for (const dtype type : {dtype::float32, dtype::bfloat16}) {
      expect_reference_bytes(path, type, 0, 2, 8, 1);
      expect_reference_bytes(path, type, 1, 1, 1, 1);
      expect_reference_bytes(path, type, 19, 3, 37, 1);
      expect_reference_bytes(path, type, 300, 4, 128, 3);
    }
  }
}

TEST(WriteKv, RoundsToNearestEvenAndKeepsSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<float, std::uint16_t>> table{
      {1.0F, 0x3F80},
      {std::bit_cast<float>(0x3F808000U), 0x3F80},  // a tie goes down to the even neighbour
      {std::bit_cast<float>(0x3F818000U), 0x3F82},  // and up
      {std::bit_cast<float>(0x3F808001U), 0x3F81},
      {-0.0F, 0x8000},
      {std::bit_cast<float>(0x7F7FFFFFU), 0x7F80},  // the largest float rounds to infinity
      {infinity, 0x7F80},
      {-infinity, 0xFF80},
      {std::bit_cast<float>(0x00008001U), 0x0001},  // subnormal
  };
  for (const instruction_path path : paths()) {
    thread_pool pool({.threads = 1});
    std::vector<float> source;
    for (const auto& [value, bits] : table) source.push_back(value);
    source.push_back(std::bit_cast<float>(0x7F800001U));  // would round to infinity
    const auto head_dim = static_cast<std::int64_t>(source.size());
    cache_memory cache(1, head_dim, 1, dtype::bfloat16);
    const tensor_view view = as_heads(matrix_view(source.data(), 1, head_dim), head_dim);
    const std::vector<std::int64_t> slots{3};
    write_kv(path, pool, {.keys = view, .values = view, .cache = cache.view, .slots = slots});
    const auto* const stored =
        reinterpret_cast<const std::uint16_t*>(cache.keys.data()) + 3 * head_dim;
    for (std::size_t i = 0; i < table.size(); ++i) {
      EXPECT_EQ(stored[i], table[i].second) << to_string(path) << " entry " << i;
    }
    EXPECT_TRUE(std::isnan(from_bfloat16(stored[table.size()]))) << to_string(path);
  }
}

TEST(WriteKvDeathTest, RefusesSlotOutsideTheCache) {
  thread_pool pool({.threads = 1});
  cache_memory cache(1, 8, 2, dtype::float32);
  padded_matrix<> keys(1, 8);
  for (const std::int64_t slot : {std::int64_t{-1}, std::int64_t{32}}) {
    const std::vector<std::int64_t> slots{slot};
    EXPECT_DEATH(write_kv(instruction_path::avx2, pool,
                          {.keys = as_heads(keys.view(), 8),
                           .values = as_heads(keys.view(), 8),
                           .cache = cache.view,
                           .slots = slots}),
                 "slot");
  }
}

}  // namespace
}  // namespace troupe::kernels
