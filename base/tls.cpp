#include "base/tls.hpp"

#include "base/check.hpp"
#include "base/socket.hpp"
#include "base/tls_openssl.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

namespace troupe::base {
namespace {

// The stronger suite costs a third more and protects nothing longer-lived here; ChaCha20 is for
// machines without AES instructions.
constexpr const char* cipher_suites =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* groups = "X25519:P-256";
constexpr std::size_t record_bytes = 16384;
// AES-GCM keys are good for 2^24.5 records (RFC 8446 section 5.5), which OpenSSL 3.0 does not
// watch. A change costs some microseconds, so far earlier: every GiB of full records.
constexpr std::uint64_t records_per_key = std::uint64_t{1} << 16;

int transfer_failed(BIO* bio, std::uint32_t retry) {
  BIO_clear_retry_flags(bio);
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
    BIO_set_flags(bio, static_cast<int>(retry) | BIO_FLAGS_SHOULD_RETRY);
  }
  return -1;
}

int descriptor_of(BIO* bio) { return *static_cast<const int*>(BIO_get_data(bio)); }

// OpenSSL's own socket BIO writes with write(2), which raises SIGPIPE where a peer is gone.
int send_bytes(BIO* bio, const char* bytes, int count) {
  const ssize_t sent =
      ::send(descriptor_of(bio), bytes, static_cast<std::size_t>(count), MSG_NOSIGNAL);
  if (sent < 0) return transfer_failed(bio, BIO_FLAGS_WRITE);
  BIO_clear_retry_flags(bio);
  return static_cast<int>(sent);
}

int receive_bytes(BIO* bio, char* bytes, int count) {
  const ssize_t got = ::recv(descriptor_of(bio), bytes, static_cast<std::size_t>(count), 0);
  if (got < 0) return transfer_failed(bio, BIO_FLAGS_READ);
  BIO_clear_retry_flags(bio);
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return static_cast<int>(got);
}

long control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_EOF:
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
      return 1;
    default:
      return 0;
  }
}

openssl::bio_method make_method() {
  openssl::bio_method made(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "gang socket"));
  if (made && BIO_meth_set_write(made.get(), send_bytes) == 1 &&
      BIO_meth_set_read(made.get(), receive_bytes) == 1 &&
      BIO_meth_set_ctrl(made.get(), control) == 1) {
    return made;
  }
  return nullptr;
}

tl::unexpected<error> unusable(std::string_view step) {
  return fail(error_code::internal, "base",
              fmt::format("cannot set up TLS: {}: {}", step, openssl::take_reason()));
}

// What a failure of the TLS protocol means. Alerts say what the peer thinks of our certificate.
std::string protocol_reason(const SSL* of, unsigned long code) {
  const long verdict = SSL_get_verify_result(of);
  switch (ERR_GET_REASON(code)) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return fmt::format("its certificate is not of this gang: {}",
                         X509_verify_cert_error_string(verdict));
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "it shows no certificate";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return "it does not take this process's certificate; all ranks need the same authority";
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
      return "it finds this process's certificate expired";
    default:
      break;
  }
  const char* const words = ERR_reason_error_string(code);
  return fmt::format("it does not speak the gang's TLS 1.3: {}",
                     words == nullptr ? "no reason given" : words);
}

}  // namespace

struct tls_context::state {
  openssl::context context;
  // Shared with the sessions, which may outlive the context.
  std::shared_ptr<const openssl::bio_method> method;
  tls_role role = tls_role::client;
};

struct tls_session::state {
  fd socket;
  int descriptor = -1;  // at an address of its own: the BIO points to it
  std::shared_ptr<const openssl::bio_method> method;
  openssl::connection connection;
  bool handshaken = false;
  bool broken = false;         // OpenSSL forbids any further call
  bool write_pending = false;  // the last write wants to be repeated
  bool starved = false;        // the last read wanted more than there was
  std::uint64_t records = 0;   // sent under the current key

  ~state() {
    // The peer learns that nothing was cut off. It need not answer.
    if (connection && handshaken && !broken && !write_pending) SSL_shutdown(connection.get());
    ERR_clear_error();
  }

  result<tls_progress> settle(int outcome);
};

// What an SSL call that did not succeed means for the caller.
result<tls_progress> tls_session::state::settle(int outcome) {
  const int reason = errno;
  switch (SSL_get_error(connection.get(), outcome)) {
    case SSL_ERROR_WANT_READ:
      return tls_progress::want_read;
    case SSL_ERROR_WANT_WRITE:
      return tls_progress::want_write;
    case SSL_ERROR_ZERO_RETURN:
      return tls_progress::closed;
    case SSL_ERROR_SYSCALL: {
      broken = true;
      ERR_clear_error();
      return fail(error_code::unavailable, "base",
                  fmt::format("the connection to {} broke: {}", peer_of(descriptor),
                              std::system_category().message(reason)),
                  true);
    }
    default:
      break;
  }
  broken = true;
  const unsigned long code = ERR_peek_last_error();  // the first ones are its causes
  const bool ended = ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  const std::string words = protocol_reason(connection.get(), code);
  ERR_clear_error();
  if (ended) return tls_progress::closed;
  return fail(error_code::unauthenticated, "base",
              fmt::format("{} is refused: {}", peer_of(descriptor), words));
}

tls_session::tls_session(std::unique_ptr<state> opened) : state_(std::move(opened)) {}
tls_session::tls_session(tls_session&&) noexcept = default;
tls_session& tls_session::operator=(tls_session&&) noexcept = default;
tls_session::~tls_session() = default;

int tls_session::descriptor() const noexcept { return state_->descriptor; }

result<tls_progress> tls_session::handshake() {
  state& self = *state_;
  if (self.broken) return tls_progress::closed;
  ERR_clear_error();
  const int outcome = SSL_do_handshake(self.connection.get());
  if (outcome != 1) return self.settle(outcome);
  self.handshaken = true;
  return tls_progress::done;
}

result<tls_io> tls_session::read(std::span<std::byte> into) {
  state& self = *state_;
  if (self.broken) return tls_io{.progress = tls_progress::closed};
  if (into.empty()) return tls_io{};
  ERR_clear_error();
  std::size_t got = 0;
  const int outcome = SSL_read_ex(self.connection.get(), into.data(), into.size(), &got);
  self.starved = outcome != 1;
  if (outcome == 1) return tls_io{.bytes = got};
  TROUPE_TRY(progress, self.settle(outcome));
  return tls_io{.progress = progress};
}

result<tls_io> tls_session::write(std::span<const std::byte> bytes) {
  state& self = *state_;
  if (self.broken) return tls_io{.progress = tls_progress::closed};
  if (bytes.empty()) return tls_io{};
  ERR_clear_error();
  if (self.records >= records_per_key && !self.write_pending) {
    if (SSL_key_update(self.connection.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
      return unusable("key update");
    }
    self.records = 0;
  }
  std::size_t sent = 0;
  const int outcome = SSL_write_ex(self.connection.get(), bytes.data(), bytes.size(), &sent);
  self.write_pending = outcome != 1;
  if (outcome == 1) {
    self.records += (sent + record_bytes - 1) / record_bytes;
    return tls_io{.bytes = sent};
  }
  TROUPE_TRY(progress, self.settle(outcome));
  return tls_io{.progress = progress};
}

bool tls_session::has_pending() const noexcept {
  const SSL* const connection = state_->connection.get();
  // Bytes of an unfinished record count for SSL_has_pending(): a read that wanted more settles it.
  return SSL_pending(connection) > 0 || (!state_->starved && SSL_has_pending(connection) == 1);
}

tls_context::tls_context(std::unique_ptr<state> made) : state_(std::move(made)) {}
tls_context::tls_context(tls_context&&) noexcept = default;
tls_context& tls_context::operator=(tls_context&&) noexcept = default;
tls_context::~tls_context() = default;

namespace {

// The rules of every connection of a gang.
bool restrict(SSL_CTX* context) {
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // A record's header and body by one receive call. A larger buffer than OpenSSL's own, which
  // holds one record, gains nothing: it moves what is left to its front after each.
  SSL_CTX_set_read_ahead(context, 1);
  return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_num_tickets(context, 0) == 1 &&
         SSL_CTX_set_ciphersuites(context, cipher_suites) == 1 &&
         SSL_CTX_set1_groups_list(context, groups) == 1;
}

bool identify(SSL_CTX* context, openssl::parsed_credentials& with) {
  if (SSL_CTX_use_certificate(context, with.own.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context, with.key.get()) != 1) {
    return false;
  }
  for (const openssl::certificate& link : with.chain) {
    if (SSL_CTX_add1_chain_cert(context, link.get()) != 1) return false;
  }
  SSL_CTX_set_cert_store(context, with.authority.release());
  return true;
}

}  // namespace

result<tls_context> tls_context::make(const gang_credentials& credentials, tls_role role) {
  TROUPE_TRY(parsed, openssl::parse_credentials(credentials));
  auto made = std::make_unique<state>();
  made->role = role;
  made->context.reset(
      SSL_CTX_new(role == tls_role::server ? TLS_server_method() : TLS_client_method()));
  made->method = std::make_shared<const openssl::bio_method>(make_method());
  if (!made->context || !*made->method) return unusable("context");
  if (!restrict(made->context.get())) return unusable("protocol");
  if (!identify(made->context.get(), parsed)) return unusable("certificate");
  return tls_context(std::move(made));
}

result<tls_session> tls_context::attach(fd socket) const {
  TROUPE_CHECK(socket);
  auto opened = std::make_unique<tls_session::state>();
  opened->descriptor = socket.get();
  opened->socket = std::move(socket);
  opened->method = state_->method;
  opened->connection.reset(SSL_new(state_->context.get()));
  openssl::bio bio(BIO_new(state_->method->get()));
  if (!opened->connection || !bio) return unusable("session");
  BIO_set_data(bio.get(), &opened->descriptor);
  BIO_set_init(bio.get(), 1);
  BIO* const both = bio.release();
  SSL_set_bio(opened->connection.get(), both, both);
  if (state_->role == tls_role::server) {
    SSL_set_accept_state(opened->connection.get());
  } else {
    SSL_set_connect_state(opened->connection.get());
  }
  return tls_session(std::move(opened));
}

}  // namespace troupe::base
