// Owners of OpenSSL's objects, and credentials as such objects. Internal to base/tls*.cpp.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/tls.hpp"

namespace troupe::base::openssl {

template <auto Free>
struct deleter {
  template <class Object>
  void operator()(Object* object) const noexcept {
    Free(object);
  }
};

using bio = std::unique_ptr<BIO, deleter<BIO_free_all>>;
using bio_method = std::unique_ptr<BIO_METHOD, deleter<BIO_meth_free>>;
using certificate = std::unique_ptr<X509, deleter<X509_free>>;
using certificate_store = std::unique_ptr<X509_STORE, deleter<X509_STORE_free>>;
using private_key = std::unique_ptr<EVP_PKEY, deleter<EVP_PKEY_free>>;
using context = std::unique_ptr<SSL_CTX, deleter<SSL_CTX_free>>;
using connection = std::unique_ptr<SSL, deleter<SSL_free>>;

// The oldest entry of the thread's error queue in words; empties the queue.
[[nodiscard]] std::string take_reason();

// Credentials that have been found good: the key is the first certificate's, and that one is in
// date and signed by the authority for both ends of a connection.
struct parsed_credentials {
  certificate own;
  std::vector<certificate> chain;  // between `own` and the authority
  private_key key;
  certificate_store authority;
};

// What errors call the three texts.
struct credential_names {
  std::string certificate = "the certificate";
  std::string key = "the key";
  std::string authority = "the authority";
};

// Errors: invalid_argument (which of the three, what is wrong with it).
[[nodiscard]] result<parsed_credentials> parse_credentials(const gang_credentials& credentials,
                                                           const credential_names& names = {});

}  // namespace troupe::base::openssl
