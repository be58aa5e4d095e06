#include "kernels/vocabulary/gumbel.hpp"

#include "kernels/vocabulary/philox.hpp"
#include "kernels/vocabulary/vocabulary.hpp"
#include "tests/kernels/vector_case.hpp"

namespace troupe::kernels {
namespace {

using namespace vector_testing;

using words = std::array<std::uint32_t, 4>;

// Source: Random123, kat_vectors, philox4x32 10.
TEST(Philox, GivesThePublishedVectors) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  EXPECT_EQ(
      philox4x32_10({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, {0xFFFFFFFF, 0xFFFFFFFF}),
      (words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(
      philox4x32_10({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
      (words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(GumbelNoise, TakesItsBitsFromTheStatedCounter) {
  const sampling_row row{.temperature = 1.0F,
                         .seed = 0x299F31D0A4093822ULL,
                         .choice = 0x85A308D3,
                         .token_index = 0x0370734413198A2EULL};
  // The third published vector, but for the counter's first word: 0x243F6A88 exceeds id / 4.
  const words expected =
      philox4x32_10({0x043F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0});
  for (std::int32_t lane = 0; lane < 4; ++lane) {
    EXPECT_EQ(noise_bits(row, 4 * 0x043F6A88 + lane), expected[static_cast<std::size_t>(lane)]);
  }
}

// -log(-log(u)) in double, from the exact integers.
[[nodiscard]] double exact_gumbel(std::uint32_t bits) {
  const double w = (2.0 * static_cast<double>(bits >> 2) + 1.0) * 0x1p-31;
  return -std::log(-std::log1p(-w));
}

// E = -log(u) has the error of one float logarithm, 2 ulp = 4 u, and that of w or u, 1 u: together
// an absolute 5 u of g. The second logarithm adds 4 u of |g|, and near g = 0 of its f, below 1.
void expect_accurate(std::uint32_t bits) {
  const double exact = exact_gumbel(bits);
  const float got = gumbel_from_bits(bits);
  ASSERT_NEAR(got, exact, (5.0 + 4.0 * std::max(1.0, std::fabs(exact))) * float_epsilon)
      << "bits " << bits;
  ASSERT_LT(got, gumbel_constants::highest);
  ASSERT_GT(got, gumbel_constants::lowest);
}

TEST(GumbelNoise, IsAccurateIntoBothTails) {
  for (std::uint64_t bits = 0; bits < (1ULL << 32); bits += 4099) {
    expect_accurate(static_cast<std::uint32_t>(bits));
  }
  for (std::uint32_t bits = 0; bits < (1U << 18); bits += 4) {
    expect_accurate(bits);
    expect_accurate(~bits);
  }
}

TEST(GumbelNoise, HasTheSameBitsInScalarAndEveryVectorPath) {
  const sampling_row rows[] = {{.seed = 0, .choice = 0, .token_index = 0},
                               {.seed = 0x0123456789ABCDEFULL, .choice = 3, .token_index = 1},
                               {.seed = ~0ULL, .choice = ~0U, .token_index = ~0ULL}};
  for (const instruction_path path : paths()) {
    for (const sampling_row& row : rows) {
      // Starts and ends within groups of 64; the last ones at the end of the id space.
      for (const auto& [first, count] : {std::pair<std::int32_t, std::size_t>{0, 300'000},
                                         {13, 7},
                                         {62, 5},
                                         {127, 130},
                                         {0x7FFFFF81, 127}}) {
        std::vector<float> noise(count);
        fill_gumbel_noise(path, row, first, noise);
        for (std::size_t i = 0; i < count; ++i) {
          const auto id = static_cast<std::int32_t>(first + static_cast<std::int64_t>(i));
          ASSERT_EQ(std::bit_cast<std::uint32_t>(noise[i]),
                    std::bit_cast<std::uint32_t>(gumbel_noise(row, id)))
              << to_string(path) << " token " << id << " seed " << row.seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace troupe::kernels
