// The element-wise ops on CUDA: against double arithmetic, and fused forms against separate ones.
#include <cmath>

#include "kernels/bfloat16.hpp"
#include "tests/cuda/cuda_case.hpp"
#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using cuda_testing::host_matrix;
using vector_testing::generator;

class CudaOps : public cuda_testing::cuda_test {
 protected:
  void wait() { ASSERT_TRUE(here().synchronize().has_value()); }
};

std::vector<float> weights(std::int64_t count, generator& random) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(1.0 + 0.1 * random.normal());
  return values;
}

TEST_F(CudaOps, NormsAreNearTheReference) {
  generator random(1);
  for (const std::int64_t columns : {1, 31, 128, 256, 257, 1000, 1024, 4096, 9000}) {
    for (const std::int64_t rows : {1, 3, 300}) {
      host_matrix x(rows, columns, rows % 2);
      x.fill([&] { return static_cast<float>(3 * random.normal()); });
      host_matrix y = x;
      const std::vector<float> weight = weights(columns, random);
      const tensor_view there = put(x.view());
      const tensor_view result = put(y.view());
      run().rms_norm(here(), {there, weight, 1e-5F, result});
      get(result, y.view());
      for (std::int64_t row = 0; row < rows; ++row) {
        double sum = 0;
        for (std::int64_t i = 0; i < columns; ++i) sum += double{x.at(row, i)} * x.at(row, i);
        const double factor = 1 / std::sqrt(sum / static_cast<double>(columns) + 1e-5);
        for (std::int64_t i = 0; i < columns; ++i) {
          const double want = x.at(row, i) * factor * double{weight[static_cast<std::size_t>(i)]};
          // The sum errs by an ulp an addition at most, its root by half of that.
          const double allowed = std::abs(want) * (static_cast<double>(columns) / 2 + 8) * 0x1p-24;
          ASSERT_NEAR(y.at(row, i), want, allowed) << columns << " columns, row " << row;
        }
      }
    }
  }
}

TEST_F(CudaOps, ARowIsNormedTheSameInEveryBatch) {
  generator random(2);
  for (const std::int64_t columns : {64, 128, 1024, 4096}) {
    host_matrix x(40, columns);
    x.fill([&] { return static_cast<float>(random.normal()); });
    const std::vector<float> weight = weights(columns, random);
    host_matrix all = x;
    const tensor_view there = put(x.view());
    const tensor_view result = put(all.view());
    run().rms_norm(here(), {there, weight, 1e-6F, result});
    get(result, all.view());
    host_matrix one(1, columns);
    const tensor_view alone = put(one.view());
    run().rms_norm(here(), {row_slice(there, 17, 1), weight, 1e-6F, alone});
    get(alone, one.view());
    EXPECT_EQ(std::memcmp(&one.at(0, 0), &all.at(17, 0), static_cast<std::size_t>(columns) * 4), 0);
  }
}

TEST_F(CudaOps, AdditionAndNormTogetherHaveTheBitsOfBoth) {
  generator random(3);
  for (const std::int64_t columns : {128, 257, 1024, 4096}) {
    for (const bool with_bias : {false, true}) {
      host_matrix x(5, columns);
      host_matrix y(5, columns);
      x.fill([&] { return static_cast<float>(random.normal()); });
      y.fill([&] { return static_cast<float>(random.normal()); });
      const std::vector<float> weight = weights(columns, random);
      const std::vector<float> bias = with_bias ? weights(columns, random) : std::vector<float>{};
      const auto both = [&](bool apart, host_matrix& target, host_matrix& normed) {
        const tensor_view x_there = put(x.view());
        const tensor_view y_there = put(y.view());
        const tensor_view out = put(normed.view());
        run().add(here(), {x_there, y_there, bias});
        if (apart) wait();
        run().rms_norm(here(), {x_there, weight, 1e-6F, out});
        get(x_there, target.view());
        get(out, normed.view());
      };
      host_matrix target(5, columns);
      host_matrix target_apart(5, columns);
      host_matrix normed(5, columns);
      host_matrix normed_apart(5, columns);
      both(false, target, normed);
      both(true, target_apart, normed_apart);
      EXPECT_TRUE(target.same_bits(target_apart)) << columns;
      EXPECT_TRUE(normed.same_bits(normed_apart)) << columns;
      const float sum = x.at(4, 3) + (with_bias ? y.at(4, 3) + bias[3] : y.at(4, 3));
      EXPECT_EQ(target.at(4, 3), sum);
    }
  }
}

// Query, key and value heads of some tokens, as attention_block has them.
struct head_case {
  std::int64_t tokens = 5;
  std::int64_t query_heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t head_dim = 64;
  bool normed = true;
  dtype cache = dtype::bfloat16;
};

TEST_F(CudaOps, HeadsPreparedTogetherHaveTheBitsOfTheSingleOps) {
  generator random(4);
  for (const head_case& of :
       {head_case{}, head_case{.tokens = 1, .head_dim = 128}, head_case{.normed = false},
        head_case{.query_heads = 3, .kv_heads = 1, .head_dim = 80, .cache = dtype::float32}}) {
    const std::int64_t columns = (of.query_heads + 2 * of.kv_heads) * of.head_dim;
    host_matrix projected(of.tokens, columns);
    projected.fill([&] { return static_cast<float>(random.normal()); });
    const std::vector<float> query_weight = weights(of.head_dim, random);
    const std::vector<float> key_weight = weights(of.head_dim, random);
    std::vector<float> cos;
    std::vector<float> sin;
    std::vector<std::int64_t> slots;
    for (std::int64_t i = 0; i < of.tokens * of.head_dim / 2; ++i) {
      cos.push_back(static_cast<float>(std::cos(0.1 * static_cast<double>(i))));
      sin.push_back(static_cast<float>(std::sin(0.1 * static_cast<double>(i))));
    }
    for (std::int64_t i = 0; i < of.tokens; ++i) slots.push_back((i * 19) % 48);
    const auto prepare = [&](bool apart) {
      const tensor_view there = put(projected.view());
      const auto heads = [&](std::int64_t begin, std::int64_t count) {
        return as_heads(column_slice(there, begin * of.head_dim, count * of.head_dim), of.head_dim);
      };
      const std::size_t bytes =
          static_cast<std::size_t>(of.kv_heads * 3 * kv_block_tokens * of.head_dim) *
          size_of(of.cache);
      const std::vector<std::byte> empty(bytes, std::byte{0x5A});
      const kv_view cache{.keys = {device_kind::cuda, put(empty.data(), bytes)},
                          .values = {device_kind::cuda, put(empty.data(), bytes)},
                          .type = of.cache,
                          .heads = of.kv_heads,
                          .head_dim = of.head_dim,
                          .blocks = 3};
      const tensor_view query = heads(0, of.query_heads);
      const tensor_view keys = heads(of.query_heads, of.kv_heads);
      const auto step = [&] {
        if (apart) wait();
      };
      if (of.normed) {
        run().rms_norm(here(), {query, query_weight, 1e-6F, query});
        step();
        run().rms_norm(here(), {keys, key_weight, 1e-6F, keys});
        step();
      }
      run().rotary(here(), {query, cos, sin});
      step();
      run().rotary(here(), {keys, cos, sin});
      step();
      run().write_kv(here(),
                     {keys, heads(of.query_heads + of.kv_heads, of.kv_heads), cache, slots});
      host_matrix result(of.tokens, of.query_heads * of.head_dim,
                         columns - of.query_heads * of.head_dim);
      std::vector<std::byte> stored(2 * bytes);
      get(column_slice(there, 0, of.query_heads * of.head_dim), result.view());
      EXPECT_TRUE(here().read(cache.keys.address, std::span(stored).first(bytes)).has_value());
      EXPECT_TRUE(here().read(cache.values.address, std::span(stored).subspan(bytes)).has_value());
      for (std::int64_t row = 0; row < of.tokens; ++row) {
        const auto* const from = reinterpret_cast<const std::byte*>(&result.at(row, 0));
        stored.insert(stored.end(), from, from + of.query_heads * of.head_dim * 4);
      }
      return stored;
    };
    EXPECT_EQ(prepare(false), prepare(true)) << of.head_dim;
  }
}

TEST_F(CudaOps, RotatesHalves) {
  host_matrix x(2, 8);
  float next = 1.0F;
  x.fill([&] { return next++; });
  const std::vector<float> cos{1.0F, 0.0F, 0.5F, -1.0F};
  const std::vector<float> sin{0.0F, 1.0F, 0.25F, 2.0F};
  const tensor_view there = put(x.view());
  host_matrix y = x;
  run().rotary(here(), {as_heads(there, 4), cos, sin});
  get(there, y.view());
  // Token 0, head 1 is (5, 6, 7, 8): pairs (5, 7) and (6, 8).
  EXPECT_EQ(y.at(0, 4), 5.0F);
  EXPECT_EQ(y.at(0, 5), -8.0F);
  EXPECT_EQ(y.at(0, 6), 7.0F);
  EXPECT_EQ(y.at(0, 7), 6.0F);
  // Token 1, head 0 is (9, 10, 11, 12) with (0.5, 0.25) and (-1, 2).
  EXPECT_EQ(y.at(1, 0), 9 * 0.5F - 11 * 0.25F);
  EXPECT_EQ(y.at(1, 1), -10.0F - 24.0F);
}

TEST_F(CudaOps, EmbedsAndGathersExactly) {
  generator random(5);
  for (const dtype type : {dtype::bfloat16, dtype::float32}) {
    auto table =
        packed_tensor::allocate({.outputs = 50, .run_ends = {72}, .type = type, .on = &on()});
    ASSERT_TRUE(table.has_value());
    std::vector<float> rows(std::size_t{50} * 72);
    for (float& value : rows)
      value = from_bfloat16(to_bfloat16(static_cast<float>(random.normal())));
    table->pack({.rows = std::as_bytes(std::span(rows)),
                 .source = source_dtype::float32,
                 .first_output = 0,
                 .outputs = 50});
    ASSERT_TRUE(on().settle().has_value());
    const std::vector<std::int32_t> ids{3, 49, 0, 3};
    host_matrix x(4, 72, 1);
    const tensor_view there = put(x.view());
    run().embed(here(), {&*table, ids, there});
    get(there, x.view());
    for (std::int64_t row = 0; row < 4; ++row) {
      for (std::int64_t i = 0; i < 72; ++i) {
        ASSERT_EQ(x.at(row, i),
                  rows[static_cast<std::size_t>(ids[static_cast<std::size_t>(row)] * 72 + i)]);
      }
    }
    const std::vector<std::int32_t> wanted{2, 0};
    host_matrix y(2, 72);
    const tensor_view gathered = put(y.view());
    run().gather_rows(here(), {there, wanted, gathered});
    get(gathered, y.view());
    EXPECT_EQ(std::memcmp(&y.at(0, 0), &x.at(2, 0), 72 * 4), 0);
    EXPECT_EQ(std::memcmp(&y.at(1, 0), &x.at(0, 0), 72 * 4), 0);
  }
}

TEST_F(CudaOps, GatesAreNearTheReference) {
  generator random(6);
  host_matrix gates(7, 100, 1);
  host_matrix ups(7, 100);
  gates.fill([&] { return static_cast<float>(5 * random.normal()); });
  ups.fill([&] { return static_cast<float>(random.normal()); });
  for (const gate_kind kind : {gate_kind::silu, gate_kind::gelu_tanh, gate_kind::gelu}) {
    host_matrix out(7, 100);
    const tensor_view there = put(out.view());
    run().gated_activation(here(), {put(gates.view()), put(ups.view()), kind, there});
    get(there, out.view());
    for (std::int64_t row = 0; row < 7; ++row) {
      for (std::int64_t i = 0; i < 100; ++i) {
        const double x = gates.at(row, i);
        const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
        const double want =
            ups.at(row, i) * (kind == gate_kind::silu   ? x / (1 + std::exp(-x))
                              : kind == gate_kind::gelu ? 0.5 * x * std::erfc(-x / std::sqrt(2.0))
                                                        : x / (1 + std::exp(-2 * u)));
        // A few ulp of each step; the exponent's argument is up to 60 and errs by 2^-23 of itself.
        ASSERT_NEAR(out.at(row, i), want, std::abs(want) * 80 * 0x1p-23 + 1e-30) << x;
      }
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
