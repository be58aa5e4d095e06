#include "base/error.hpp"

#include <gtest/gtest.h>

namespace troupe::base {
namespace {

result<int> half(int value) {
  if (value % 2 != 0) return fail(error_code::invalid_argument, "test", "odd");
  return value / 2;
}

result<int> quarter(int value) {
  TROUPE_TRY(first, half(value));
  return half(first);
}

result<void> require_even(int value) {
  TROUPE_TRY_VOID(half(value));
  return {};
}

TEST(Error, TryNamesTheValueOrReturnsTheError) {
  EXPECT_EQ(quarter(12).value(), 3);
  const auto failed = quarter(6);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, error_code::invalid_argument);
  EXPECT_EQ(failed.error().message, "odd");
  EXPECT_EQ(failed.error().origin, "test");
  EXPECT_FALSE(failed.error().retryable);
  EXPECT_TRUE(require_even(2));
  EXPECT_FALSE(require_even(3));
}

TEST(Error, EveryCodeHasItsCanonicalName) {
  EXPECT_EQ(to_string(error_code::cancelled), "cancelled");
  EXPECT_EQ(to_string(error_code::invalid_argument), "invalid_argument");
  EXPECT_EQ(to_string(error_code::resource_exhausted), "resource_exhausted");
  EXPECT_EQ(to_string(error_code::unauthenticated), "unauthenticated");
  EXPECT_EQ(to_string(static_cast<error_code>(99)), "unknown");
}

}  // namespace
}  // namespace troupe::base
