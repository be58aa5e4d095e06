// Certificates that a gang must refuse: expired, not yet valid, of another authority, for one end
// only. The key of this authority is kept, unlike that of base::make_gang_credentials().
#pragma once

#include "base/check.hpp"
#include "base/tls.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

namespace troupe::base::testing {

struct certificate_wish {
  int starts_in_days = -1;
  int ends_in_days = 1;
  const char* usage = "serverAuth,clientAuth";
};

class certificate_maker {
 public:
  certificate_maker() : key_(EVP_EC_gen("P-256")), authority_(X509_new()) {
    fill(authority_.get(), {}, key_.get());
    add(NID_basic_constraints, "critical,CA:TRUE", authority_.get());
    add(NID_subject_key_identifier, "hash", authority_.get());
    TROUPE_CHECK(X509_sign(authority_.get(), key_.get(), EVP_sha256()) != 0);
  }

  // A certificate, its key, and this authority.
  gang_credentials issue(certificate_wish wish) {
    const std::unique_ptr<EVP_PKEY, free_key> key(EVP_EC_gen("P-256"));
    const std::unique_ptr<X509, free_certificate> made(X509_new());
    fill(made.get(), wish, key.get());
    add(NID_ext_key_usage, wish.usage, made.get());
    add(NID_authority_key_identifier, "keyid:always", made.get());
    TROUPE_CHECK(X509_sign(made.get(), key_.get(), EVP_sha256()) != 0);
    const auto pem = [](auto write) {
      BIO* const to = BIO_new(BIO_s_mem());
      TROUPE_CHECK(write(to) == 1);
      char* bytes = nullptr;
      const auto count = static_cast<std::size_t>(BIO_get_mem_data(to, &bytes));
      std::string text(bytes, count);
      BIO_free(to);
      return text;
    };
    return {.certificate = pem([&](BIO* to) { return PEM_write_bio_X509(to, made.get()); }),
            .key = pem([&](BIO* to) {
              return PEM_write_bio_PrivateKey(to, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
            }),
            .authority = pem([&](BIO* to) { return PEM_write_bio_X509(to, authority_.get()); })};
  }

 private:
  struct free_key {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  };
  struct free_certificate {
    void operator()(X509* of) const { X509_free(of); }
  };

  void fill(X509* made, certificate_wish wish, EVP_PKEY* key) {
    const bool is_authority = made == authority_.get();
    const auto* const name =
        reinterpret_cast<const unsigned char*>(is_authority ? "authority" : "member");
    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), ++serial_);
    X509_time_adj_ex(X509_getm_notBefore(made), is_authority ? -1000 : wish.starts_in_days, 0,
                     nullptr);
    X509_time_adj_ex(X509_getm_notAfter(made), is_authority ? 1000 : wish.ends_in_days, 0, nullptr);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC, name, -1, -1, 0);
    X509_set_issuer_name(made, X509_get_subject_name(authority_.get()));
  }

  void add(int kind, const char* value, X509* to) {
    X509V3_CTX around{};
    X509V3_set_ctx_nodb(&around);
    X509V3_set_ctx(&around, authority_.get(), to, nullptr, nullptr, 0);
    X509_EXTENSION* const added = X509V3_EXT_conf_nid(nullptr, &around, kind, value);
    TROUPE_CHECK(added != nullptr && X509_add_ext(to, added, -1) == 1);
    X509_EXTENSION_free(added);
  }

  std::unique_ptr<EVP_PKEY, free_key> key_;
  std::unique_ptr<X509, free_certificate> authority_;
  long serial_ = 0;
};

}  // namespace troupe::base::testing
