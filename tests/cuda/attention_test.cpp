// Attention on CUDA against the double reference, and bit against bit over chunks and batches.
#include "kernels/attention/attention.hpp"

#include "tests/cuda/cuda_case.hpp"
#include "tests/kernels/attention_case.hpp"

namespace troupe::kernels {
namespace {

using attention_testing::attention_case;
using attention_testing::attention_problem;
using attention_testing::value_at;

class CudaAttention : public cuda_testing::cuda_test {
 protected:
  // Output rows of all sequences, one after the other.
  std::vector<std::byte> attend(attention_problem& problem) {
    attention_args args = problem.args();
    const tensor_view output = args.output;
    const auto elements = static_cast<std::size_t>(args.cache.heads * args.cache.blocks *
                                                   kv_block_tokens * args.cache.head_dim);
    const std::size_t bytes = elements * size_of(args.cache.type);
    args.query = put(args.query);
    args.cache.keys = {device_kind::cuda, put(args.cache.keys.address, bytes)};
    args.cache.values = {device_kind::cuda, put(args.cache.values.address, bytes)};
    args.output = put(output);
    run().attention(here(), args);
    get(args.output, output);
    std::vector<std::byte> all;
    for (std::size_t i = 0; i < problem.sequences().size(); ++i) {
      const std::vector<std::byte> rows = problem.output_of(i);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }
  std::vector<std::byte> attend(const attention_case& of) {
    attention_problem problem(of);
    return attend(problem);
  }
};

// For values of V within [-1, 1] and |K| <= 1. Queries are rounded to bfloat16 (2^-9 of each), so a
// score errs by that share of sum |q k| / sqrt(d), and by a tensor core's cuts (2^-22 of it a
// step); an error e of all exponents changes the mean of values of size 1 by at most 2 (exp(e) -
// 1). Weights are rounded to bfloat16 (2^-9 each, numerator only); sums over n positions add 2^-22
// a position; a bfloat16 output 2^-9.
double tolerance(const attention_case& of, double visible) {
  const bool tensor_cores = of.cache == dtype::bfloat16 && of.head_dim % 8 == 0;
  const double u_b = tensor_cores ? std::ldexp(1.0, -9) : 0.0;
  const double u = std::ldexp(1.0, -22);
  const double products =
      1.002 * static_cast<double>(of.query_size) * std::sqrt(static_cast<double>(of.head_dim));
  const double exponent = products * (u_b + static_cast<double>(of.head_dim + 6) * u);
  return 2 * std::expm1(exponent) + u_b + (2 * visible + 64) * u +
         (of.output == dtype::bfloat16 ? std::ldexp(1.0, -9) : 0.0);
}

std::vector<attention_case> shapes() {
  std::vector<attention_case> all;
  std::uint64_t seed = 1;
  for (const std::int64_t dim : {32, 64, 80, 96, 128, 256, 8, 36}) {
    for (const std::int64_t group : {1, 2, 4, 7, 8, 20}) {
      all.push_back({.kv_heads = 2,
                     .group = group,
                     .head_dim = dim,
                     .chunks = {{0, 17}, {63, 2}, {511, 1}, {0, 1}, {100, 65}},
                     .output = seed % 2 == 0 ? dtype::bfloat16 : dtype::float32,
                     .seed = seed,
                     .query_padding = static_cast<std::int64_t>(seed % 3)});
      ++seed;
    }
  }
  all.push_back({.chunks = {{1500, 1}, {1023, 1}, {1024, 1}, {0, 1100}}, .seed = 90});
  all.push_back({.chunks = {{1500, 1}, {700, 60}, {20, 1}}, .window = 33, .seed = 91});
  all.push_back({.head_dim = 128, .chunks = {{2000, 1}, {1990, 20}}, .window = 700, .seed = 92});
  all.push_back({.chunks = {{30, 3}, {7, 1}}, .interleave_heads = true, .seed = 93});
  all.push_back({.chunks = {{70, 3}, {600, 1}}, .cache = dtype::float32, .seed = 94});
  all.push_back({.chunks = {{40, 1}, {40, 30}}, .query_size = 8.0F, .seed = 95});
  return all;
}

TEST_F(CudaAttention, IsNearTheReference) {
  for (const attention_case& of : shapes()) {
    SCOPED_TRACE(of.describe());
    const std::vector<std::byte> result = attend(of);
    attention_case exact = of;
    exact.output = dtype::float32;
    attention_problem problem(exact);
    attention_reference(problem.args());
    double visible = 0;
    for (const auto& c : of.chunks) {
      visible = std::max(visible, static_cast<double>(c.first_position + c.rows));
    }
    const double allowed = tolerance(of, visible);
    std::size_t index = 0;
    double worst = 0;
    std::string where;
    for (std::size_t s = 0; s < of.chunks.size(); ++s) {
      const std::vector<std::byte> expected = problem.output_of(s);
      for (std::size_t i = 0; i < expected.size() / 4; ++i, ++index) {
        const double want = value_at(expected, i, dtype::float32);
        const double got = value_at(result, index, of.output);
        if (std::abs(got - want) <= worst) continue;
        worst = std::isnan(got) ? 1e9 : std::abs(got - want);
        where = "sequence " + std::to_string(s) + " element " + std::to_string(i) + ": " +
                std::to_string(got) + " instead of " + std::to_string(want);
      }
    }
    EXPECT_LE(worst, allowed) << where;
  }
}

TEST_F(CudaAttention, EveryChunkingHasTheSameBits) {
  for (const std::int64_t dim : {64, 128}) {
    for (const std::int64_t group : {1, 4, 7}) {
      for (const std::int64_t window : {0, 100, 600}) {
        constexpr std::int64_t length = 1100;
        attention_case of{.group = group, .head_dim = dim, .chunks = {{0, length}}, .seed = 5};
        if (window > 0) of.window = window;
        const std::vector<std::byte> whole = attend(of);
        const std::size_t row = whole.size() / static_cast<std::size_t>(length);
        for (const std::int64_t chunk : {1, 3, 16, 64, 100}) {
          // Positions here and there; a chunk of one is the decode kernel.
          for (const std::int64_t first : {0, 15, 63, 64, 500, 511, 512, 513, 1000}) {
            attention_case part = of;
            part.chunks = {{first, chunk}};
            part.placement = static_cast<std::uint64_t>(first + chunk);
            const std::vector<std::byte> some = attend(part);
            EXPECT_EQ(std::memcmp(some.data(), whole.data() + static_cast<std::size_t>(first) * row,
                                  some.size()),
                      0)
                << part.describe();
          }
        }
      }
    }
  }
}

TEST_F(CudaAttention, NeighboursChangeNothing) {
  attention_case of{.group = 4, .head_dim = 128, .chunks = {{700, 1}}, .seed = 6};
  const std::vector<std::byte> alone = attend(of);
  of.chunks = {{700, 1}, {3, 40}, {1200, 1}, {0, 1}, {64, 64}};
  const std::vector<std::byte> among = attend(of);
  EXPECT_EQ(std::memcmp(alone.data(), among.data(), alone.size()), 0);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(attend(of), among);
}

// What a launch leaves in the queue's memory must not reach one of another shape: few sequences
// that see much, then many that see little, in the memory of the first.
TEST_F(CudaAttention, EarlierLaunchesChangeNothing) {
  const attention_case few{.kv_heads = 8, .head_dim = 128, .chunks = {{8000, 1}}, .seed = 7};
  attention_case many{.kv_heads = 8, .head_dim = 128, .seed = 8};
  for (std::int64_t i = 0; i < 40; ++i) many.chunks.push_back({i, 1});
  const std::vector<std::byte> before = attend(many);
  EXPECT_EQ(attend(few), attend(few));
  EXPECT_EQ(attend(many), before);
}

}  // namespace
}  // namespace troupe::kernels
