// Those who call a rank's listener without being a data plane: strangers with their own OpenSSL,
// and members of the gang that say what no rank would.
#pragma once

#include "base/socket.hpp"
#include "base/tls.hpp"
#include "transport/tls_wire.hpp"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace troupe::transport::testing {

inline base::fd call_socket(const data_plane_address& of) {
  const auto at = tls_wire::decode_endpoint(of).value();
  return std::move(base::connect_to(at.host, at.port, std::chrono::seconds(30)).value());
}

// A client with a certificate of the gang (or of another), driven by hand.
class member {
 public:
  member(const base::gang_credentials& credentials, base::fd socket)
      : context_(base::tls_context::make(credentials, base::tls_role::client).value()),
        session_(context_.attach(std::move(socket)).value()) {}

  [[nodiscard]] int descriptor() const { return session_.descriptor(); }

  bool shake() {
    return until_done([this] {
      const auto outcome = session_.handshake();
      return outcome ? base::result<base::tls_io>(base::tls_io{.progress = *outcome})
                     : base::result<base::tls_io>(tl::unexpected(outcome.error()));
    });
  }
  // False where the other side ended the connection first.
  bool say(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (!until_done([&] {
            auto wrote = session_.write(bytes);
            if (wrote) bytes = bytes.subspan(wrote->bytes);
            return wrote;
          })) {
        return false;
      }
    }
    return true;
  }
  bool hear(std::span<std::byte> into) {
    while (!into.empty()) {
      if (!until_done([&] {
            auto got = session_.read(into);
            if (got) into = into.subspan(got->bytes);
            return got;
          })) {
        return false;
      }
    }
    return true;
  }

  // Greets and returns what the rank says to it; nothing where it hangs up instead.
  std::optional<tls_wire::verdict> greet(std::span<const std::byte> greeting) {
    std::array<std::byte, tls_wire::greeting_bytes> theirs{};
    std::array<std::byte, tls_wire::verdict_bytes> said{};
    if (!shake() || !hear(theirs) || !say(greeting) || !hear(said)) return std::nullopt;
    const auto verdict = tls_wire::decode_verdict(said);
    return verdict ? std::optional(*verdict) : std::nullopt;
  }

 private:
  template <class Step>
  bool until_done(Step step) {
    for (;;) {
      const base::result<base::tls_io> moved = step();
      if (!moved || moved->progress == base::tls_progress::closed) return false;
      if (moved->progress == base::tls_progress::done) return true;
      pollfd waiting{.fd = session_.descriptor(),
                     .events = static_cast<short>(
                         moved->progress == base::tls_progress::want_write ? POLLOUT : POLLIN),
                     .revents = 0};
      if (::poll(&waiting, 1, 30000) != 1) return false;
    }
  }

  base::tls_context context_;
  base::tls_session session_;
};

// A stranger's handshake with OpenSSL's own client: whether the rank let it in, that is, greeted.
struct stranger_wish {
  const base::gang_credentials* identity = nullptr;  // none: shows no certificate
  int version_max = TLS1_3_VERSION;
};
inline bool is_let_in(const data_plane_address& of, stranger_wish wish) {
  const base::fd socket = call_socket(of);
  ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) & ~O_NONBLOCK);
  const timeval patience{.tv_sec = 30, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, wish.version_max);
  if (wish.identity != nullptr) {
    BIO* const certificate_text = BIO_new_mem_buf(wish.identity->certificate.data(), -1);
    BIO* const key_text = BIO_new_mem_buf(wish.identity->key.data(), -1);
    X509* const certificate = PEM_read_bio_X509(certificate_text, nullptr, nullptr, nullptr);
    EVP_PKEY* const key = PEM_read_bio_PrivateKey(key_text, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context, certificate);
    SSL_CTX_use_PrivateKey(context, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
    BIO_free(certificate_text);
    BIO_free(key_text);
  }
  SSL* const stranger = SSL_new(context);
  SSL_set_fd(stranger, socket.get());
  char greeting[tls_wire::greeting_bytes];
  const bool let_in =
      SSL_connect(stranger) == 1 &&
      SSL_read(stranger, greeting, sizeof(greeting)) == static_cast<int>(sizeof(greeting));
  SSL_free(stranger);
  SSL_CTX_free(context);
  return let_in;
}

}  // namespace troupe::transport::testing
