#include "base/hmac.hpp"

#include <gtest/gtest.h>

namespace troupe::base {
namespace {

// RFC 4231 takes keys of other lengths; HMAC pads a short key with zeros, so a key of 32 bytes that
// ends in zeros is the same key.
digest padded(std::string_view key) {
  digest all{};
  for (std::size_t i = 0; i < key.size(); ++i) all[i] = static_cast<std::uint8_t>(key[i]);
  return all;
}

TEST(HmacSha256, GivesTheValuesOfRfc4231) {
  EXPECT_EQ(to_hex(hmac_sha256(padded(std::string(20, '\x0b')), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac_sha256(padded("Jefe"), "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

}  // namespace
}  // namespace troupe::base
