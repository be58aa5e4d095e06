#include "base/sha256.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/base/instruction_count.hpp"

namespace troupe::base {
namespace {

// The examples of FIPS 180-4 and the empty text.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(to_hex(sha256_of("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(to_hex(sha256_of(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesAreCut) {
  const std::string text(1000, 'x');
  for (const std::size_t cut : {0UL, 1UL, 63UL, 64UL, 65UL, 999UL, 1000UL}) {
    sha256 hash;
    hash.update(std::string_view(text).substr(0, cut));
    hash.update(std::as_bytes(std::span(text)).subspan(cut));
    EXPECT_EQ(hash.finish(), sha256_of(text)) << "cut at " << cut;
  }
}

TEST(Sha256, StartsANewHashAfterTheEnd) {
  sha256 hash;
  hash.update("something else");
  EXPECT_NE(hash.finish(), sha256_of("abc"));
  hash.update("abc");
  sha256 moved = std::move(hash);
  EXPECT_EQ(moved.finish(), sha256_of("abc"));
  EXPECT_EQ(moved.finish(), sha256_of(""));
}

TEST(Sha256, ComparesWithTheSameInstructionsWhereverTheDifferenceIs) {
  const digest secret = sha256_of("a");
  std::vector<digest> guesses(4, secret);
  guesses[1].front() ^= 1;
  guesses[2].back() ^= 1;
  guesses[3] = sha256_of("b");
  std::vector<long> counts;
  for (const digest& guess : guesses) {
    volatile bool same = equal_in_constant_time(secret, guess);
    counts.push_back(test::instructions_of([&] { same = equal_in_constant_time(secret, guess); }));
  }
  if (counts.front() < 0) GTEST_SKIP() << "processes cannot be traced here";
  EXPECT_GT(counts.front(), 32);
  for (const long count : counts) EXPECT_EQ(count, counts.front());
}

TEST(Sha256, ComparesWhole) {
  const digest a = sha256_of("a");
  digest other = a;
  EXPECT_TRUE(equal_in_constant_time(a, other));
  other.back() ^= 1;
  EXPECT_FALSE(equal_in_constant_time(a, other));
  EXPECT_FALSE(equal_in_constant_time(a, std::span(a).first(31)));
  EXPECT_TRUE(equal_in_constant_time({}, {}));
}

}  // namespace
}  // namespace troupe::base
