#include "base/tls_openssl.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <utility>

namespace troupe::base::openssl {
namespace {

// A chain longer than this is no gang's.
constexpr std::size_t certificates_max = 16;

using store_context = std::unique_ptr<X509_STORE_CTX, deleter<X509_STORE_CTX_free>>;
using certificate_stack =
    std::unique_ptr<STACK_OF(X509), deleter<[](STACK_OF(X509) * of) {
                      sk_X509_free(of);  // the certificates themselves stay their owners'
                    }>>;

tl::unexpected<error> refuse(std::string message) {
  return fail(error_code::invalid_argument, "base", std::move(message));
}

bio over(std::string_view text) {
  return bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// An encrypted key must not ask the terminal for its password.
int no_password(char*, int, int, void*) { return -1; }

result<std::vector<certificate>> read_certificates(std::string_view text, const std::string& name) {
  const bio source = over(text);
  std::vector<certificate> found;
  ERR_clear_error();
  while (certificate next{PEM_read_bio_X509(source.get(), nullptr, no_password, nullptr)}) {
    if (found.size() == certificates_max) {
      return refuse(fmt::format("{} holds more than {} certificates", name, certificates_max));
    }
    found.push_back(std::move(next));
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string reason = take_reason();
  if (!at_end) return refuse(fmt::format("{} holds a broken certificate: {}", name, reason));
  if (found.empty()) return refuse(fmt::format("{} holds no PEM certificate", name));
  return found;
}

result<private_key> read_key(std::string_view text, const std::string& name) {
  const bio source = over(text);
  ERR_clear_error();
  private_key key(PEM_read_bio_PrivateKey(source.get(), nullptr, no_password, nullptr));
  if (key) return key;
  return refuse(fmt::format("{} holds no unencrypted PEM private key: {}", name, take_reason()));
}

// Every certificate of the text is an anchor, an intermediate one too: cert-manager writes the
// issuer, which need not sign itself.
result<certificate_store> make_store(std::string_view text, const std::string& name) {
  TROUPE_TRY(anchors, read_certificates(text, name));
  certificate_store store(X509_STORE_new());
  if (!store) return refuse(fmt::format("{}: {}", name, take_reason()));
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN);
  for (const certificate& anchor : anchors) {
    if (X509_check_ca(anchor.get()) == 0) {
      return refuse(fmt::format("{} holds a certificate that is no authority", name));
    }
    if (X509_STORE_add_cert(store.get(), anchor.get()) != 1) {
      return refuse(fmt::format("{}: {}", name, take_reason()));
    }
  }
  return store;
}

// Whether a peer that trusts the store would take the certificate as `end` of a connection.
result<void> check_chain(const parsed_credentials& of, const char* end,
                         const credential_names& names) {
  const store_context check(X509_STORE_CTX_new());
  const certificate_stack between(sk_X509_new_null());
  bool made = check != nullptr && between != nullptr;
  for (const certificate& link : of.chain) {
    made = made && sk_X509_push(between.get(), link.get()) > 0;
  }
  made = made &&
         X509_STORE_CTX_init(check.get(), of.authority.get(), of.own.get(), between.get()) == 1;
  made = made && X509_STORE_CTX_set_default(check.get(), end) == 1;
  if (!made) return refuse(fmt::format("{}: {}", names.certificate, take_reason()));
  if (X509_verify_cert(check.get()) == 1) return {};
  const int reason = X509_STORE_CTX_get_error(check.get());
  const int depth = X509_STORE_CTX_get_error_depth(check.get());
  ERR_clear_error();
  const bool of_authority =
      depth > static_cast<int>(of.chain.size()) &&
      (reason == X509_V_ERR_CERT_HAS_EXPIRED || reason == X509_V_ERR_CERT_NOT_YET_VALID);
  return refuse(fmt::format(
      "{} is not valid under {}: {}", of_authority ? names.authority : names.certificate,
      of_authority ? "this date" : names.authority, X509_verify_cert_error_string(reason)));
}

}  // namespace

std::string take_reason() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "OpenSSL gives no reason" : reason;
}

result<parsed_credentials> parse_credentials(const gang_credentials& credentials,
                                             const credential_names& names) {
  parsed_credentials parsed;
  TROUPE_TRY(certificates, read_certificates(credentials.certificate, names.certificate));
  parsed.own = std::move(certificates.front());
  for (std::size_t i = 1; i < certificates.size(); ++i) {
    parsed.chain.push_back(std::move(certificates[i]));
  }
  TROUPE_TRY(key, read_key(credentials.key, names.key));
  parsed.key = std::move(key);
  if (X509_check_private_key(parsed.own.get(), parsed.key.get()) != 1) {
    ERR_clear_error();
    return refuse(fmt::format("{} is not the key of {}", names.key, names.certificate));
  }
  TROUPE_TRY(authority, make_store(credentials.authority, names.authority));
  parsed.authority = std::move(authority);
  TROUPE_TRY_VOID(check_chain(parsed, "ssl_client", names));
  TROUPE_TRY_VOID(check_chain(parsed, "ssl_server", names));
  return parsed;
}

}  // namespace troupe::base::openssl
