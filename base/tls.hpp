// Mutual TLS 1.3 of a gang: credentials, contexts, and sessions over a non-blocking socket.
//
// A gang has one private certificate authority; who has a certificate of it is a member. On one
// host it is made on the fly and handed down as descriptors of sealed memory, so that no key is on
// any disk; between hosts it comes from a folder (tls.crt, tls.key, ca.crt as cert-manager writes).
//
//   TROUPE_TRY(ours, base::make_gang_credentials());
//   TROUPE_TRY(context, base::tls_context::make(ours, base::tls_role::server));
//   TROUPE_TRY(session, context.attach(std::move(socket)));
//   session.handshake(); session.read(bytes); ...            // want_read / want_write: poll
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace troupe::base {

// PEM texts. Private: never logged, never in a message.
struct gang_credentials {
  std::string certificate;
  std::string key;
  std::string authority;
};

// A new authority and one certificate under it (P-256, ten years, for one gang on one host).
[[nodiscard]] result<gang_credentials> make_gang_credentials();

// A certificate under an authority whose key everybody can compute: connections are encrypted and
// nobody is kept out. For TROUPE_INSECURE_GANG=1 on a network that is itself closed.
[[nodiscard]] result<gang_credentials> make_insecure_gang_credentials();

// Reads tls.crt, tls.key and ca.crt. Errors: not_found, invalid_argument (which file, what is
// wrong: not PEM, key of another certificate, expired, not signed by ca.crt), resource_exhausted
// (larger than 64 KiB), permission_denied.
[[nodiscard]] result<gang_credentials> read_gang_credentials(const std::filesystem::path& folder);

// The same as three sealed memory files, for libraries that want paths and for child processes
// that inherit descriptors; path() is /proc/self/fd/N.
struct credential_files {
  fd certificate;
  fd key;
  fd authority;
};
[[nodiscard]] result<credential_files> seal_credentials(const gang_credentials& credentials);
[[nodiscard]] result<gang_credentials> unseal_credentials(const credential_files& files);
[[nodiscard]] std::string path_of(const fd& file);

enum class tls_role : std::uint8_t { client, server };
enum class tls_progress : std::uint8_t { done, want_read, want_write, closed };

struct tls_io {
  tls_progress progress = tls_progress::done;
  std::size_t bytes = 0;  // moved, when done
};

// One connection. Owns its socket. One thread at a time.
class tls_session {
 public:
  tls_session(tls_session&&) noexcept;
  tls_session& operator=(tls_session&&) noexcept;
  ~tls_session();

  [[nodiscard]] int descriptor() const noexcept;
  // Errors of all three: unauthenticated (the peer is not of this gang: why), unavailable (reset).
  [[nodiscard]] result<tls_progress> handshake();
  [[nodiscard]] result<tls_io> read(std::span<std::byte> into);
  // After want_read or want_write the next call must give the same bytes again, or more of them.
  [[nodiscard]] result<tls_io> write(std::span<const std::byte> bytes);
  // Decrypted bytes that poll() on the socket does not know of.
  [[nodiscard]] bool has_pending() const noexcept;

 private:
  friend class tls_context;
  struct state;
  explicit tls_session(std::unique_ptr<state> opened);
  std::unique_ptr<state> state_;
};

class tls_context {
 public:
  // TLS 1.3 only, peer certificate demanded, verified against the gang's authority alone.
  [[nodiscard]] static result<tls_context> make(const gang_credentials& credentials, tls_role role);
  tls_context(tls_context&&) noexcept;
  tls_context& operator=(tls_context&&) noexcept;
  ~tls_context();

  // `socket` is non-blocking and connected. Any thread.
  [[nodiscard]] result<tls_session> attach(fd socket) const;

 private:
  struct state;
  explicit tls_context(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

}  // namespace troupe::base
