#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/sha256.hpp"
#include "base/tls.hpp"
#include "base/tls_openssl.hpp"

namespace troupe::base {
namespace {

// A chain of a few certificates has under 10 KiB.
constexpr std::size_t text_bytes_max = std::size_t{64} << 10;
constexpr long day_seconds = 24L * 60 * 60;
constexpr int days_valid = 3650;

using extension = std::unique_ptr<X509_EXTENSION, openssl::deleter<X509_EXTENSION_free>>;

std::string text_of(int number) { return std::system_category().message(number); }

tl::unexpected<error> no_credentials(std::string_view step) {
  return fail(
      error_code::internal, "base",
      fmt::format("cannot make the gang's certificates: {}: {}", step, openssl::take_reason()));
}

struct certificate_wish {
  const char* name;
  X509* issuer = nullptr;  // null: it signs itself
  EVP_PKEY* issuer_key = nullptr;
  std::vector<std::pair<int, const char*>> extensions;
};

bool set_serial(X509* of) {
  std::array<unsigned char, 16> random{};
  if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) return false;
  random[0] = static_cast<unsigned char>((random[0] & 0x3fU) | 0x40U);  // positive, 16 bytes
  const std::unique_ptr<BIGNUM, openssl::deleter<BN_free>> number(
      BN_bin2bn(random.data(), static_cast<int>(random.size()), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(of)) != nullptr;
}

bool fill(X509* made, EVP_PKEY* key, const certificate_wish& wish) {
  X509_NAME* const name = X509_get_subject_name(made);
  const auto* const text = reinterpret_cast<const unsigned char*>(wish.name);
  X509* const issuer = wish.issuer == nullptr ? made : wish.issuer;
  // A day back: the clocks of two machines differ.
  return X509_set_version(made, X509_VERSION_3) == 1 && set_serial(made) &&
         X509_gmtime_adj(X509_getm_notBefore(made), -day_seconds) != nullptr &&
         X509_time_adj_ex(X509_getm_notAfter(made), days_valid, 0, nullptr) != nullptr &&
         X509_set_pubkey(made, key) == 1 &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0) == 1 &&
         X509_set_issuer_name(made, X509_get_subject_name(issuer)) == 1;
}

result<openssl::certificate> make_certificate(EVP_PKEY* key, const certificate_wish& wish) {
  openssl::certificate made(X509_new());
  if (!made || !fill(made.get(), key, wish)) return no_credentials(wish.name);
  X509V3_CTX around{};
  X509V3_set_ctx_nodb(&around);
  X509V3_set_ctx(&around, wish.issuer == nullptr ? made.get() : wish.issuer, made.get(), nullptr,
                 nullptr, 0);
  for (const auto& [kind, value] : wish.extensions) {
    const extension added(X509V3_EXT_conf_nid(nullptr, &around, kind, value));
    if (!added || X509_add_ext(made.get(), added.get(), -1) != 1) return no_credentials(value);
  }
  EVP_PKEY* const signer = wish.issuer_key == nullptr ? key : wish.issuer_key;
  // Ed25519 has its own digest (RFC 8032).
  const EVP_MD* const hash = EVP_PKEY_is_a(signer, "ED25519") == 1 ? nullptr : EVP_sha256();
  if (X509_sign(made.get(), signer, hash) == 0) return no_credentials("signature");
  return made;
}

template <class Write>
result<std::string> to_pem(Write write) {
  const openssl::bio target(BIO_new(BIO_s_mem()));
  if (!target || write(target.get()) != 1) return no_credentials("PEM");
  char* bytes = nullptr;
  const long count = BIO_get_mem_data(target.get(), &bytes);
  return std::string(bytes, static_cast<std::size_t>(count));
}

// Up to the bound, whatever the offset of the descriptor is: other processes may share it.
result<std::string> read_bounded(int from, const std::string& name) {
  std::string text(text_bytes_max + 1, '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t got =
        pread(from, text.data() + filled, text.size() - filled, static_cast<off_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return fail(error_code::unavailable, "base",
                  fmt::format("cannot read {}: {}", name, text_of(errno)));
    }
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  if (filled > text_bytes_max) {
    return fail(
        error_code::resource_exhausted, "base",
        fmt::format("{} is larger than {} bytes: no PEM file of a gang is", name, text_bytes_max));
  }
  text.resize(filled);
  return text;
}

result<std::string> read_text(const std::filesystem::path& path) {
  // Non-blocking: a FIFO in its place must not hold the start.
  const fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    const auto code = errno == ENOENT || errno == ENOTDIR ? error_code::not_found
                      : errno == EACCES                   ? error_code::permission_denied
                                                          : error_code::unavailable;
    return fail(code, "base", fmt::format("cannot open {}: {}", path.string(), text_of(errno)));
  }
  struct stat about {};
  if (fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return fail(error_code::invalid_argument, "base",
                fmt::format("{} is not a regular file", path.string()));
  }
  return read_bounded(file.get(), path.string());
}

result<fd> seal(const char* name, std::string_view text) {
  fd made(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  // Mode 0400: who opens it again through /proc must be this user.
  if (!made || fchmod(made.get(), S_IRUSR) != 0 ||
      ::write(made.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      fcntl(made.get(), F_ADD_SEALS, seals) != 0) {
    return fail(error_code::resource_exhausted, "base",
                fmt::format("cannot make the memory file {}: {}", name, text_of(errno)));
  }
  return made;
}

}  // namespace

namespace {

// A member's certificate under this authority key.
result<gang_credentials> make_under(const openssl::private_key& authority_key) {
  const openssl::private_key own_key(EVP_EC_gen("P-256"));
  if (!authority_key || !own_key) return no_credentials("key");
  TROUPE_TRY(authority, make_certificate(authority_key.get(),
                                         {.name = "troupe gang authority",
                                          .extensions = {
                                              {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                                              {NID_key_usage, "critical,keyCertSign"},
                                              {NID_subject_key_identifier, "hash"},
                                          }}));
  TROUPE_TRY(own, make_certificate(own_key.get(), {.name = "troupe gang member",
                                                   .issuer = authority.get(),
                                                   .issuer_key = authority_key.get(),
                                                   .extensions = {
                                                       {NID_basic_constraints, "critical,CA:FALSE"},
                                                       {NID_key_usage, "critical,digitalSignature"},
                                                       {NID_ext_key_usage, "serverAuth,clientAuth"},
                                                       {NID_subject_key_identifier, "hash"},
                                                       {NID_authority_key_identifier, "keyid"},
                                                   }}));
  gang_credentials made;
  TROUPE_TRY(authority_text,
             to_pem([&](BIO* to) { return PEM_write_bio_X509(to, authority.get()); }));
  TROUPE_TRY(own_text, to_pem([&](BIO* to) { return PEM_write_bio_X509(to, own.get()); }));
  TROUPE_TRY(key_text, to_pem([&](BIO* to) {
               return PEM_write_bio_PrivateKey(to, own_key.get(), nullptr, nullptr, 0, nullptr,
                                               nullptr);
             }));
  made.authority = std::move(authority_text);
  made.certificate = std::move(own_text);
  made.key = std::move(key_text);
  return made;
}

}  // namespace

result<gang_credentials> make_gang_credentials() {
  ERR_clear_error();
  // The authority's key ends here: nobody ever signs a second certificate with it.
  return make_under(openssl::private_key(EVP_EC_gen("P-256")));
}

result<gang_credentials> make_insecure_gang_credentials() {
  ERR_clear_error();
  const digest known = sha256_of("troupe: a gang without secrets");
  return make_under(openssl::private_key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, known.data(), known.size())));
}

result<gang_credentials> read_gang_credentials(const std::filesystem::path& folder) {
  const openssl::credential_names names{.certificate = (folder / "tls.crt").string(),
                                        .key = (folder / "tls.key").string(),
                                        .authority = (folder / "ca.crt").string()};
  gang_credentials read;
  TROUPE_TRY(certificate, read_text(names.certificate));
  TROUPE_TRY(key, read_text(names.key));
  TROUPE_TRY(authority, read_text(names.authority));
  read.certificate = std::move(certificate);
  read.key = std::move(key);
  read.authority = std::move(authority);
  TROUPE_TRY_VOID(openssl::parse_credentials(read, names));
  return read;
}

result<credential_files> seal_credentials(const gang_credentials& credentials) {
  TROUPE_TRY(certificate, seal("troupe-tls.crt", credentials.certificate));
  TROUPE_TRY(key, seal("troupe-tls.key", credentials.key));
  TROUPE_TRY(authority, seal("troupe-ca.crt", credentials.authority));
  return credential_files{.certificate = std::move(certificate),
                          .key = std::move(key),
                          .authority = std::move(authority)};
}

result<gang_credentials> unseal_credentials(const credential_files& files) {
  TROUPE_TRY(certificate, read_bounded(files.certificate.get(), "the inherited certificate"));
  TROUPE_TRY(key, read_bounded(files.key.get(), "the inherited key"));
  TROUPE_TRY(authority, read_bounded(files.authority.get(), "the inherited authority"));
  gang_credentials read{.certificate = std::move(certificate),
                        .key = std::move(key),
                        .authority = std::move(authority)};
  TROUPE_TRY_VOID(openssl::parse_credentials(read, {.certificate = "the inherited certificate",
                                                    .key = "the inherited key",
                                                    .authority = "the inherited authority"}));
  return read;
}

std::string path_of(const fd& file) { return fmt::format("/proc/self/fd/{}", file.get()); }

}  // namespace troupe::base
