#include "base/sha256.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <utility>

#include "base/check.hpp"

namespace troupe::base {

// The algorithm is looked up once an object: every implicit look-up would take a lock. A failure is
// no memory or an OpenSSL without SHA-256; neither can be answered by the caller.
struct sha256::state {
  state() : algorithm(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context(EVP_MD_CTX_new()) {
    TROUPE_CHECK(algorithm != nullptr && context != nullptr);
    start();
  }
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    EVP_MD_CTX_free(context);
    EVP_MD_free(algorithm);
  }

  void start() { TROUPE_CHECK(EVP_DigestInit_ex2(context, algorithm, nullptr) == 1); }

  EVP_MD* algorithm;
  EVP_MD_CTX* context;
};

sha256::sha256() : state_(std::make_unique<state>()) {}
sha256::sha256(sha256&&) noexcept = default;
sha256& sha256::operator=(sha256&&) noexcept = default;
sha256::~sha256() = default;

void sha256::update(std::span<const std::byte> bytes) {
  TROUPE_CHECK(state_ != nullptr);
  TROUPE_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

void sha256::update(std::string_view text) { update(std::as_bytes(std::span(text))); }

digest sha256::finish() {
  TROUPE_CHECK(state_ != nullptr);
  digest result{};
  unsigned int length = 0;
  TROUPE_CHECK(EVP_DigestFinal_ex(state_->context, result.data(), &length) == 1);
  TROUPE_CHECK(length == result.size());
  state_->start();
  return result;
}

digest sha256_of(std::string_view text) {
  sha256 hash;
  hash.update(text);
  return hash.finish();
}

std::string to_hex(const digest& of) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * of.size());
  for (const std::uint8_t byte : of) {
    text.push_back(digits[byte >> 4U]);
    text.push_back(digits[byte & 15U]);
  }
  return text;
}

bool equal_in_constant_time(std::span<const std::uint8_t> a,
                            std::span<const std::uint8_t> b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace troupe::base
