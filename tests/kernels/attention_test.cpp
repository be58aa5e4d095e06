// Attention against the double reference, on every instruction path of this CPU.
#include "kernels/attention/attention.hpp"

#include <gtest/gtest.h>

#include <bit>

#include "tests/kernels/attention_case.hpp"

namespace troupe::kernels {
namespace {

using attention_testing::attention_case;
using attention_testing::attention_problem;
using attention_testing::run_case;
using attention_testing::value_at;

std::vector<instruction_path> paths() { return supported_paths(dtype::bfloat16); }

// How far a path may be from the exact result, for values of V within [-1, 1].
//
// A score is a sum of d products: float32 chains err by at most (d + 2) u sum |q k| (Higham 2002,
// section 3.1), u = 2^-24; AMX also rounds each q by u_b = 2^-9 relative. Multiplying with the
// scale and subtracting the maximum, and the exponential's argument, add 4 u |score|. An error e of
// all exponents changes every weight by a factor within exp(+-e), numerator and denominator, so the
// mean of values of size 1 by at most 2 (exp(e) - 1). The sums over n positions add 2 n u, in 1024
// position splits folded with at most n / 1024 + 16 rescalings of 4 u each: (2 n + n / 64 + 64) u
// bounds all. AMX rounds each weight by u_b, alike in the numerator and the denominator: 2 u_b. The
// output's own rounding: u, or u_b in bfloat16.
double tolerance(instruction_path path, const attention_case& of, double product_sum,
                 double visible) {
  const double u = std::ldexp(1.0, -24);
  const double u_b = std::ldexp(1.0, -9);
  const bool tiles =
      (path == instruction_path::amx_bf16 || path == instruction_path::avx512_bf16) &&
      of.cache == dtype::bfloat16;
  const auto dim = static_cast<double>(of.head_dim);
  const double exponent = product_sum / std::sqrt(dim) * ((dim + 6) * u + (tiles ? u_b : 0));
  return 2 * std::expm1(exponent) + (2 * visible + visible / 64 + 64) * u + (tiles ? 2 * u_b : 0) +
         (of.output == dtype::bfloat16 ? u_b : u);
}

// The largest sum |q k| over all cells of the problem, from its query size: |q| <= 1.002 size and
// |k| <= 1.
double product_sum(const attention_case& of) {
  return 1.002 * static_cast<double>(of.query_size) * static_cast<double>(of.head_dim);
}

void expect_near_reference(const attention_case& of, instruction_path path) {
  SCOPED_TRACE(of.describe() + " path " + std::string(to_string(path)));
  const std::vector<std::byte> result = run_case(of, path);
  attention_case exact = of;
  exact.output = dtype::float32;
  attention_problem problem(exact);
  attention_reference(problem.args());

  double visible = 0;
  for (const auto& c : of.chunks) {
    const auto seen = std::min(c.first_position + c.rows,
                               of.window.value_or(std::numeric_limits<std::int64_t>::max()));
    visible = std::max(visible, static_cast<double>(seen));
  }
  const double allowed = tolerance(path, of, product_sum(of), visible);
  std::size_t index = 0;
  double worst = -1;
  std::string where;
  for (std::size_t s = 0; s < of.chunks.size(); ++s) {
    const std::vector<std::byte> expected = problem.output_of(s);
    for (std::size_t i = 0; i < expected.size() / 4; ++i, ++index) {
      const double want = value_at(expected, i, dtype::float32);
      const double got = value_at(result, index, of.output);
      const double error = std::isnan(got) ? 1e30 : std::abs(got - want);
      if (error <= worst) continue;
      worst = error;
      where = "sequence " + std::to_string(s) + " element " + std::to_string(i) + ": got " +
              std::to_string(got) + ", reference " + std::to_string(want);
    }
  }
  EXPECT_LE(worst, allowed) << where;
}

void expect_near_reference_everywhere(attention_case of) {
  for (const instruction_path path : paths()) {
    for (const dtype cache : {dtype::bfloat16, dtype::float32}) {
      of.cache = cache;
      expect_near_reference(of, path);
    }
  }
}

TEST(Attention, EqualsReferenceAtEveryHeadDimension) {
  for (const std::int64_t head_dim :
       {1, 2, 3, 4, 7, 8, 15, 16, 17, 20, 31, 32, 33, 48, 64, 80, 96, 112, 128, 192, 256}) {
    expect_near_reference_everywhere({.head_dim = head_dim,
                                      .chunks = {{0, 37}, {70, 1}, {33, 5}},
                                      .seed = static_cast<std::uint64_t>(head_dim)});
  }
}

TEST(Attention, EqualsReferenceAtTheLargestHeadDimension) {
  expect_near_reference_everywhere(
      {.kv_heads = 1, .head_dim = 1024, .chunks = {{60, 9}}, .query_size = 0.25F});
}

TEST(Attention, EqualsReferenceAtEveryGroupSize) {
  for (const std::int64_t group : {1, 2, 3, 4, 5, 7, 8, 16, 33, 160}) {
    expect_near_reference_everywhere({.group = group, .chunks = {{0, 21}, {90, 1}}});
    expect_near_reference_everywhere(
        {.group = group, .chunks = {{3, 2}}, .interleave_heads = true, .query_padding = 5});
  }
}

TEST(Attention, EqualsReferenceAtEveryContextLength) {
  for (const std::int64_t position :
       {0, 1, 14, 15, 16, 17, 30, 31, 32, 47, 48, 62, 63, 64, 65, 127, 128, 1023, 1024, 1025}) {
    expect_near_reference_everywhere({.chunks = {{position, 1}}});
    expect_near_reference_everywhere({.kv_heads = 1, .chunks = {{position, 19}}});
  }
}

TEST(Attention, EqualsReferenceBeyondTheCaches) {
  expect_near_reference_everywhere(
      {.kv_heads = 3, .group = 1, .head_dim = 128, .chunks = {{9000, 2}, {2500, 3}}});
  expect_near_reference_everywhere({.kv_heads = 1, .head_dim = 64, .chunks = {{0, 700}}});
}

TEST(Attention, EqualsReferenceInEveryWindow) {
  for (const std::int64_t window :
       {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 1024, 5000}) {
    for (const std::int64_t position : {0, 15, 16, 31, 63, 64, 80, 200}) {
      expect_near_reference_everywhere({.chunks = {{position, 1}}, .window = window});
      expect_near_reference_everywhere(
          {.kv_heads = 1, .chunks = {{position, 35}}, .window = window});
    }
  }
  expect_near_reference_everywhere({.chunks = {{1010, 40}, {2100, 1}}, .window = 70});
  expect_near_reference_everywhere({.chunks = {{1010, 40}, {2100, 1}}, .window = 1050});
}

TEST(Attention, SurvivesHugeScores) {
  // Scores up to 1e4 and 1e6: the largest weight takes all, nothing overflows.
  for (const float query_size : {2e3F, 2e5F}) {
    for (const instruction_path path : paths()) {
      const attention_case of{
          .head_dim = 64, .chunks = {{0, 70}}, .query_size = query_size, .seed = 5};
      const std::vector<std::byte> result = run_case(of, path);
      for (std::size_t i = 0; i < result.size() / 4; ++i) {
        ASSERT_LE(std::abs(value_at(result, i, dtype::float32)), 1.0F)
            << to_string(path) << " element " << i;
      }
    }
  }
}

TEST(Attention, TakesTheLargestScoreOfMany) {
  // One query equal to one key, scaled so that all other weights vanish: the output is that V.
  constexpr std::int64_t dim = 64;
  constexpr std::int64_t tokens = 200;
  for (const instruction_path path : paths()) {
    for (const std::int64_t target : {0, 15, 16, 77, 198}) {
      std::vector<float> keys(208 * dim);
      std::vector<float> values(208 * dim);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t d = 0; d < dim; ++d) {
          const auto at = static_cast<std::size_t>(t * dim + d);
          keys[at] = attention_testing::content(9, 1, 0, t, d) >= 0 ? 1.0F : -1.0F;
          values[at] = attention_testing::content(9, 2, 0, t, d);
        }
      }
      std::vector<float> query(dim);
      for (std::size_t d = 0; d < dim; ++d) {
        query[d] = 500.0F * keys[static_cast<std::size_t>(target * dim) + d];
      }
      std::vector<std::int32_t> table(13);
      std::iota(table.begin(), table.end(), 0);
      std::vector<float> output(dim);
      const std::vector<std::int32_t> kv_head_of{0};
      const std::vector<sequence_rows> sequences{
          {.first_row = 0, .rows = 1, .first_position = tokens - 1, .block_table = table}};
      thread_pool pool({.threads = 1});
      attention(
          path, pool,
          {.query = as_heads(matrix_view(query.data(), 1, dim), dim),
           .cache = {.keys = {device_kind::cpu, reinterpret_cast<std::byte*>(keys.data())},
                     .values = {device_kind::cpu, reinterpret_cast<std::byte*>(values.data())},
                     .type = dtype::float32,
                     .heads = 1,
                     .head_dim = dim,
                     .blocks = 13},
           .kv_head_of = kv_head_of,
           .sequences = sequences,
           .scale = 1.0F,
           .window = std::nullopt,
           .output = as_heads(matrix_view(output.data(), 1, dim), dim)});
      for (std::size_t d = 0; d < dim; ++d) {
        EXPECT_EQ(output[d], values[static_cast<std::size_t>(target * dim) + d])
            << to_string(path) << " target " << target << " dimension " << d;
      }
    }
  }
}

TEST(Attention, RoundsItsBfloat16OutputToNearest) {
  for (const instruction_path path : paths()) {
    attention_case of{.head_dim = 20, .chunks = {{30, 40}}};
    const std::vector<std::byte> wide = run_case(of, path);
    of.output = dtype::bfloat16;
    const std::vector<std::byte> narrow = run_case(of, path);
    ASSERT_EQ(wide.size(), 2 * narrow.size());
    for (std::size_t i = 0; i < narrow.size() / 2; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, wide.data() + i * 4, 4);
      std::uint16_t got = 0;
      std::memcpy(&got, narrow.data() + i * 2, 2);
      ASSERT_EQ(got, (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << to_string(path) << " " << i;
    }
  }
}

TEST(Attention, WritesNothingBetweenItsRows) {
  for (const instruction_path path : paths()) {
    for (const dtype output : {dtype::float32, dtype::bfloat16}) {
      attention_problem problem(
          {.head_dim = 20, .chunks = {{0, 5}}, .output = output, .query_padding = 3});
      const attention_args args = problem.args();
      thread_pool pool({.threads = 1});
      attention(path, pool, args);
      const std::size_t size = size_of(output);
      for (std::size_t row = 0; row < 5; ++row) {
        const auto* padding = args.output.data.address +
                              (row * static_cast<std::size_t>(args.output.row_stride) + 80) * size;
        for (std::size_t i = 0; i < 3 * size; ++i) EXPECT_EQ(padding[i], std::byte{0x7F});
      }
    }
  }
}

TEST(Attention, AcceptsNoRows) {
  for (const instruction_path path : paths()) {
    EXPECT_TRUE(run_case({.chunks = {}}, path).empty());
    EXPECT_TRUE(run_case({.chunks = {{5, 0}}}, path).empty());
    expect_near_reference({.chunks = {{5, 0}, {3, 2}, {0, 0}}}, path);
  }
}

TEST(AttentionDeathTest, RefusesABlockOutsideTheCache) {
  attention_problem problem({.chunks = {{0, 40}}});
  const attention_args args = problem.args();
  std::vector<std::int32_t> table(args.sequences[0].block_table.begin(),
                                  args.sequences[0].block_table.end());
  table[1] = static_cast<std::int32_t>(args.cache.blocks);
  std::vector<sequence_rows> sequences{args.sequences[0]};
  sequences[0].block_table = table;
  attention_args bad = args;
  bad.sequences = sequences;
  thread_pool pool({.threads = 1});
  EXPECT_DEATH(attention(instruction_path::avx2, pool, bad), "entry < cache.blocks");
}

}  // namespace
}  // namespace troupe::kernels
