#include "base/hmac.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/check.hpp"

namespace troupe::base {

digest hmac_sha256(const digest& key, std::string_view text) {
  digest result{};
  unsigned int length = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  TROUPE_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes, text.size(),
                    result.data(), &length) != nullptr);
  TROUPE_CHECK(length == result.size());
  return result;
}

}  // namespace troupe::base
