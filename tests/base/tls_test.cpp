#include "base/tls.hpp"

#include "tests/base/certificate_maker.hpp"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::base {
namespace {

namespace fs = std::filesystem;
using testing::certificate_maker;

template <class T>
std::string message_of(const result<T>& outcome) {
  return outcome ? "success"
                 : std::string(to_string(outcome.error().code)) + ": " + outcome.error().message;
}

std::pair<fd, fd> connected_pair() {
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  return {fd(ends[0]), fd(ends[1])};
}

struct two_ends {
  tls_session client;
  tls_session server;
};

two_ends attach_both(const gang_credentials& client, const gang_credentials& server) {
  auto [a, b] = connected_pair();
  return {
      .client = tls_context::make(client, tls_role::client).value().attach(std::move(a)).value(),
      .server = tls_context::make(server, tls_role::server).value().attach(std::move(b)).value()};
}

// Turns both ends until both are done or one has failed.
struct outcome_pair {
  result<tls_progress> client = tls_progress::want_read;
  result<tls_progress> server = tls_progress::want_read;
};
outcome_pair shake(two_ends& ends) {
  outcome_pair outcome;
  const auto waits = [](const result<tls_progress>& of) {
    return of && (*of == tls_progress::want_read || *of == tls_progress::want_write);
  };
  for (int turn = 0; turn < 20; ++turn) {
    if (waits(outcome.client)) outcome.client = ends.client.handshake();
    if (waits(outcome.server)) outcome.server = ends.server.handshake();
  }
  return outcome;
}

bool both_done(const outcome_pair& of) {
  return of.client && of.server && *of.client == tls_progress::done &&
         *of.server == tls_progress::done;
}

TEST(Tls, MembersOfOneGangTalkBothWays) {
  const auto ours = make_gang_credentials();
  ASSERT_TRUE(ours) << message_of(ours);
  two_ends ends = attach_both(*ours, *ours);
  ASSERT_TRUE(both_done(shake(ends)));
  for (const bool forward : {true, false}) {
    tls_session& from = forward ? ends.client : ends.server;
    tls_session& to = forward ? ends.server : ends.client;
    std::vector<std::byte> sent(1 << 20);
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * i >> 7);
    std::vector<std::byte> got(sent.size());
    std::size_t out = 0;
    std::size_t in = 0;
    while (in < got.size()) {
      const auto wrote = from.write(std::span(sent).subspan(out));
      ASSERT_TRUE(wrote) << message_of(wrote);
      out += wrote->bytes;
      const auto read = to.read(std::span(got).subspan(in));
      ASSERT_TRUE(read) << message_of(read);
      in += read->bytes;
    }
    EXPECT_EQ(sent, got);
    EXPECT_FALSE(to.has_pending());
  }
}

TEST(Tls, PendingBytesAreThoseThatPollDoesNotSee) {
  const auto ours = make_gang_credentials();
  two_ends ends = attach_both(*ours, *ours);
  ASSERT_TRUE(both_done(shake(ends)));
  std::vector<std::byte> buffer(100);
  for (int record = 0; record < 3; ++record) ASSERT_TRUE(ends.client.write(buffer));
  // The first read takes all three records off the socket.
  std::size_t got = 0;
  do {
    const auto read = ends.server.read(std::span(buffer).first(10));
    ASSERT_TRUE(read);
    ASSERT_EQ(read->progress, tls_progress::done);
    got += read->bytes;
  } while (ends.server.has_pending());
  EXPECT_EQ(got, 300U);
  EXPECT_EQ(ends.server.read(buffer)->progress, tls_progress::want_read);
  EXPECT_FALSE(ends.server.has_pending());
}

TEST(Tls, EndOfAConnectionIsClosedWithOrWithoutGoodbye) {
  const auto ours = make_gang_credentials();
  for (const bool politely : {true, false}) {
    two_ends ends = attach_both(*ours, *ours);
    ASSERT_TRUE(both_done(shake(ends)));
    std::optional<tls_session> client(std::move(ends.client));
    if (!politely) ::shutdown(client->descriptor(), SHUT_RDWR);
    client.reset();
    std::vector<std::byte> buffer(10);
    EXPECT_EQ(ends.server.read(buffer)->progress, tls_progress::closed);
    EXPECT_EQ(ends.server.read(buffer)->progress, tls_progress::closed);
    const auto wrote = ends.server.write(buffer);  // and no SIGPIPE
    EXPECT_TRUE(!wrote || wrote->progress == tls_progress::closed);
    if (!wrote) {
      EXPECT_EQ(wrote.error().code, error_code::unavailable);
    }
  }
}

TEST(Tls, GoesOnAcrossAChangeOfKeys) {
  const auto ours = make_gang_credentials();
  two_ends ends = attach_both(*ours, *ours);
  ASSERT_TRUE(both_done(shake(ends)));
  // Keys change after 2^16 records; every write here is one.
  constexpr std::uint64_t records = 3 * (std::uint64_t{1} << 16);
  std::vector<std::byte> buffer(4096);
  std::uint64_t sum_out = 0;
  std::uint64_t sum_in = 0;
  for (std::uint64_t sent = 0; sent < records;) {
    const std::byte value{static_cast<std::uint8_t>(sent * 31)};
    const auto wrote = ends.client.write(std::span(&value, 1));
    ASSERT_TRUE(wrote) << message_of(wrote);
    if (wrote->progress == tls_progress::done) {
      sum_out = sum_out * 3 + static_cast<std::uint8_t>(value);
      ++sent;
    }
    if (wrote->progress == tls_progress::done && sent % 64 != 0 && sent != records) continue;
    for (;;) {
      const auto read = ends.server.read(buffer);
      ASSERT_TRUE(read) << message_of(read);
      if (read->progress != tls_progress::done) break;
      for (std::size_t i = 0; i < read->bytes; ++i) {
        sum_in = sum_in * 3 + static_cast<std::uint8_t>(buffer[i]);
      }
    }
  }
  EXPECT_EQ(sum_in, sum_out);
}

TEST(Tls, AnotherGangIsRefusedAndTheLineSaysWhy) {
  const auto ours = make_gang_credentials();
  const auto foreign = make_gang_credentials();
  two_ends ends = attach_both(*foreign, *ours);
  const outcome_pair outcome = shake(ends);
  // The client checks first and says so to the server.
  ASSERT_FALSE(outcome.client);
  EXPECT_EQ(outcome.client.error().code, error_code::unauthenticated);
  EXPECT_NE(outcome.client.error().message.find("not of this gang"), std::string::npos)
      << outcome.client.error().message;
  ASSERT_FALSE(outcome.server);
  EXPECT_EQ(outcome.server.error().code, error_code::unauthenticated);
  EXPECT_NE(outcome.server.error().message.find("same authority"), std::string::npos)
      << outcome.server.error().message;
}

TEST(Tls, InsecureGangsTrustEachOtherAndNobodyElseTrustsThem) {
  const auto one = make_insecure_gang_credentials();
  const auto two = make_insecure_gang_credentials();
  ASSERT_TRUE(one && two);
  EXPECT_NE(one->key, two->key);
  two_ends together = attach_both(*one, *two);
  EXPECT_TRUE(both_done(shake(together)));
  const auto gang = make_gang_credentials();
  two_ends apart = attach_both(*one, *gang);
  EXPECT_FALSE(shake(apart).client);
}

// A stranger with OpenSSL's defaults and what `prepare` sets; returns what the server says of it.
template <class Prepare>
result<tls_progress> greet_stranger(const gang_credentials& ours, Prepare prepare) {
  auto [a, b] = connected_pair();
  auto server = tls_context::make(ours, tls_role::server).value().attach(std::move(b)).value();
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
  prepare(context);
  SSL* const stranger = SSL_new(context);
  SSL_set_fd(stranger, a.get());
  result<tls_progress> outcome = tls_progress::want_read;
  for (int turn = 0; turn < 20 && outcome && *outcome == tls_progress::want_read; ++turn) {
    SSL_connect(stranger);
    outcome = server.handshake();
  }
  SSL_free(stranger);
  SSL_CTX_free(context);
  return outcome;
}

void identify(SSL_CTX* context, const gang_credentials& with) {
  BIO* const certificate_text = BIO_new_mem_buf(with.certificate.data(), -1);
  BIO* const key_text = BIO_new_mem_buf(with.key.data(), -1);
  X509* const certificate = PEM_read_bio_X509(certificate_text, nullptr, nullptr, nullptr);
  EVP_PKEY* const key = PEM_read_bio_PrivateKey(key_text, nullptr, nullptr, nullptr);
  EXPECT_EQ(SSL_CTX_use_certificate(context, certificate), 1);
  EXPECT_EQ(SSL_CTX_use_PrivateKey(context, key), 1);
  X509_free(certificate);
  EVP_PKEY_free(key);
  BIO_free(certificate_text);
  BIO_free(key_text);
}

void expect_refused(const result<tls_progress>& outcome, const std::string& words) {
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, error_code::unauthenticated);
  EXPECT_NE(outcome.error().message.find(words), std::string::npos) << outcome.error().message;
  EXPECT_EQ(outcome.error().message.find('\n'), std::string::npos);
}

TEST(Tls, StrangersAreRefused) {
  certificate_maker maker;
  const gang_credentials ours = maker.issue({});
  // The stranger's own means work: it is let in with a good certificate.
  const auto welcome =
      greet_stranger(ours, [&](SSL_CTX* context) { identify(context, maker.issue({})); });
  ASSERT_TRUE(welcome) << message_of(welcome);
  EXPECT_EQ(*welcome, tls_progress::done);

  expect_refused(greet_stranger(ours, [](SSL_CTX*) {}), "shows no certificate");
  expect_refused(
      greet_stranger(ours,
                     [&](SSL_CTX* context) { identify(context, certificate_maker().issue({})); }),
      "not of this gang");
  expect_refused(greet_stranger(ours,
                                [&](SSL_CTX* context) {
                                  identify(context,
                                           maker.issue({.starts_in_days = -3, .ends_in_days = -2}));
                                }),
                 "expired");
  expect_refused(greet_stranger(ours,
                                [&](SSL_CTX* context) {
                                  identify(context,
                                           maker.issue({.starts_in_days = 1, .ends_in_days = 2}));
                                }),
                 "not yet valid");
  expect_refused(
      greet_stranger(
          ours, [&](SSL_CTX* context) { identify(context, maker.issue({.usage = "serverAuth"})); }),
      "purpose");
  expect_refused(greet_stranger(ours,
                                [&](SSL_CTX* context) {
                                  identify(context, maker.issue({}));
                                  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
                                }),
                 "protocol");
}

TEST(Tls, GarbageIsRefusedAndSilenceWaits) {
  const auto ours = make_gang_credentials();
  const auto context = tls_context::make(*ours, tls_role::server);
  for (const std::string& text : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(600, '\xff'),
                                  std::string(70, '\0'), std::string("\x16\x03\x01\xff\xff", 5)}) {
    auto [a, b] = connected_pair();
    auto server = context->attach(std::move(b));
    ASSERT_TRUE(server);
    EXPECT_EQ(server->handshake().value(), tls_progress::want_read);
    ASSERT_GT(::write(a.get(), text.data(), text.size()), 0);
    expect_refused(server->handshake(), "does not speak");
    EXPECT_EQ(server->handshake().value(), tls_progress::closed);
  }
}

TEST(Credentials, SealedFilesGiveTheSameTextsAndCannotChange) {
  const auto ours = make_gang_credentials();
  auto files = seal_credentials(*ours);
  ASSERT_TRUE(files) << message_of(files);
  for (int again = 0; again < 2; ++again) {
    const auto back = unseal_credentials(*files);
    ASSERT_TRUE(back) << message_of(back);
    EXPECT_EQ(back->certificate, ours->certificate);
    EXPECT_EQ(back->key, ours->key);
    EXPECT_EQ(back->authority, ours->authority);
    // As a library does that wants a path.
    std::ifstream key(path_of(files->key));
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(key), {}), ours->key);
  }
  EXPECT_EQ(::pwrite(files->key.get(), "x", 1, 0), -1);
  EXPECT_EQ(::ftruncate(files->key.get(), 0), -1);
  EXPECT_FALSE(fd(::open(path_of(files->key).c_str(), O_RDWR | O_CLOEXEC)) &&
               ::pwrite(files->key.get(), "x", 1, 0) == 1);
  EXPECT_NE(fcntl(files->key.get(), F_GETFD) & FD_CLOEXEC, 0);
}

// A folder of its own that goes with the test.
class CredentialFolder : public ::testing::Test {
 protected:
  CredentialFolder() {
    std::string pattern = (fs::temp_directory_path() / "troupe-credentials-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~CredentialFolder() override { fs::remove_all(folder_); }

  void put(const gang_credentials& texts) {
    put("tls.crt", texts.certificate);
    put("tls.key", texts.key);
    put("ca.crt", texts.authority);
  }
  void put(const char* name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  void expect_refused(error_code code, const std::string& file, const std::string& words) {
    const auto outcome = read_gang_credentials(folder_);
    ASSERT_FALSE(outcome) << file << ", " << words;
    EXPECT_EQ(outcome.error().code, code) << message_of(outcome);
    EXPECT_NE(outcome.error().message.find((folder_ / file).string()), std::string::npos)
        << outcome.error().message;
    EXPECT_NE(outcome.error().message.find(words), std::string::npos) << outcome.error().message;
    EXPECT_EQ(outcome.error().message.find("PRIVATE"), std::string::npos);
  }

  fs::path folder_;
  certificate_maker maker_;
};

TEST_F(CredentialFolder, IsReadWhole) {
  const gang_credentials good = maker_.issue({});
  put(good);
  const auto read = read_gang_credentials(folder_);
  ASSERT_TRUE(read) << message_of(read);
  EXPECT_EQ(read->key, good.key);
  // During a change of authority both are in the file.
  put("ca.crt", certificate_maker().issue({}).authority + good.authority);
  EXPECT_TRUE(read_gang_credentials(folder_));
}

TEST_F(CredentialFolder, NamesTheFileThatIsWrong) {
  const gang_credentials good = maker_.issue({});
  const gang_credentials other = maker_.issue({});
  const gang_credentials foreign = certificate_maker().issue({});
  const auto with = [&](const char* name, const std::string& text) {
    put(good);
    put(name, text);
  };
  expect_refused(error_code::not_found, "tls.crt", "No such file");
  put(good);
  fs::remove(folder_ / "tls.key");
  expect_refused(error_code::not_found, "tls.key", "No such file");
  with("tls.crt", "");
  expect_refused(error_code::invalid_argument, "tls.crt", "no PEM certificate");
  with("tls.crt", good.certificate.substr(0, good.certificate.size() / 2));
  expect_refused(error_code::invalid_argument, "tls.crt", "broken certificate");
  with("tls.key", "nothing");
  expect_refused(error_code::invalid_argument, "tls.key", "private key");
  with("tls.key", other.key);
  expect_refused(error_code::invalid_argument, "tls.key", "is not the key of");
  with("ca.crt", foreign.authority);
  expect_refused(error_code::invalid_argument, "tls.crt", "not valid under");
  with("ca.crt", good.certificate + good.authority);
  expect_refused(error_code::invalid_argument, "ca.crt", "no authority");
  put(maker_.issue({.starts_in_days = -3, .ends_in_days = -2}));
  expect_refused(error_code::invalid_argument, "tls.crt", "expired");
  put(maker_.issue({.usage = "clientAuth"}));
  expect_refused(error_code::invalid_argument, "tls.crt", "purpose");
  with("ca.crt", good.authority + std::string(70000, '\n'));
  expect_refused(error_code::resource_exhausted, "ca.crt", "65536");
}

TEST_F(CredentialFolder, NeverWaitsForAFifoOrReadsAFolder) {
  put(maker_.issue({}));
  fs::remove(folder_ / "tls.key");
  ASSERT_EQ(::mkfifo((folder_ / "tls.key").c_str(), 0600), 0);
  expect_refused(error_code::invalid_argument, "tls.key", "regular file");
  fs::remove(folder_ / "tls.key");
  fs::create_directory(folder_ / "tls.key");
  expect_refused(error_code::invalid_argument, "tls.key", "regular file");
}

TEST(Credentials, AContextNeedsTextsThatFitTogether) {
  const auto ours = make_gang_credentials();
  const auto foreign = make_gang_credentials();
  gang_credentials mixed = *ours;
  mixed.key = foreign->key;
  const auto outcome = tls_context::make(mixed, tls_role::client);
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, error_code::invalid_argument);
  EXPECT_FALSE(tls_context::make({}, tls_role::server));
}

}  // namespace
}  // namespace troupe::base
