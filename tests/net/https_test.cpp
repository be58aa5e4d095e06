// The client over TLS: whom it trusts, and that it says why it does not.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "net/http_client.hpp"

namespace troupe::net {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

struct pem_pair {
  std::string certificate;
  std::string key;
};

std::string text_of(BIO* memory) {
  char* bytes = nullptr;
  const auto size = BIO_get_mem_data(memory, &bytes);
  std::string text(bytes, static_cast<std::size_t>(size));
  BIO_free(memory);
  return text;
}

// A certificate that signs itself, for these subject alternative names ("IP:127.0.0.1").
pem_pair make_certificate(const std::string& names) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const made = X509_new();
  X509_set_version(made, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
  X509_gmtime_adj(X509_getm_notBefore(made), -60);
  X509_gmtime_adj(X509_getm_notAfter(made), 3600);
  X509_set_pubkey(made, key);
  const std::string subject = "test";
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(subject.data()), -1, -1, 0);
  X509_set_issuer_name(made, X509_get_subject_name(made));
  X509_EXTENSION* const alternative =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
  X509_add_ext(made, alternative, -1);
  X509_sign(made, key, EVP_sha256());
  BIO* const certificate_text = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(certificate_text, made);
  BIO* const key_text = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(key_text, key, nullptr, nullptr, 0, nullptr, nullptr);
  pem_pair pair{.certificate = text_of(certificate_text), .key = text_of(key_text)};
  X509_EXTENSION_free(alternative);
  X509_free(made);
  EVP_PKEY_free(key);
  return pair;
}

// Answers one request over TLS, or ends with the handshake that fails.
class tls_server {
 public:
  explicit tls_server(const pem_pair& who) : context_(asio::ssl::context::tls_server) {
    context_.use_certificate_chain(asio::buffer(who.certificate));
    context_.use_private_key(asio::buffer(who.key), asio::ssl::context::pem);
    thread_ = std::thread([this] { serve(); });
  }
  tls_server(const tls_server&) = delete;
  tls_server& operator=(const tls_server&) = delete;
  ~tls_server() { thread_.join(); }

  [[nodiscard]] std::string url(const std::string& host) const {
    return "https://" + host + ":" + std::to_string(acceptor_.local_endpoint().port()) + "/a";
  }

 private:
  void serve() {
    error_code error;
    asio::ssl::stream<asio::ip::tcp::socket> client(io_, context_);
    acceptor_.accept(client.next_layer(), error);
    client.handshake(asio::ssl::stream_base::server, error);
    if (error) return;
    std::array<char, 4096> bytes;
    const std::size_t n = client.read_some(asio::buffer(bytes), error);
    const std::string seen(bytes.data(), n);
    const std::string answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n" + seen.substr(0, 4);
    asio::write(client, asio::buffer(answer), error);
  }

  asio::io_context io_;
  asio::ssl::context context_;
  asio::ip::tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};
  std::thread thread_;
};

class Https : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    const std::string path = (folder_ / "ca.pem").string();
    std::ofstream(path) << text;
    return path;
  }
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("troupe-https-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

TEST_F(Https, TalksToWhoIsVouchedFor) {
  const pem_pair who = make_certificate("IP:127.0.0.1,DNS:localhost");
  for (const char* host : {"127.0.0.1", "localhost"}) {
    const tls_server server(who);
    const auto reply =
        http_fetch({.url = server.url(host), .authorities_file = write(who.certificate)});
    ASSERT_TRUE(reply) << host << ": " << reply.error().message;
    EXPECT_EQ(reply->status, 200);
    EXPECT_EQ(reply->body, "GET ");
  }
}

TEST_F(Https, RefusesWhomNobodyVouchesFor) {
  const tls_server server(make_certificate("IP:127.0.0.1"));
  const std::string other = write(make_certificate("IP:127.0.0.1").certificate);
  const auto reply = http_fetch({.url = server.url("127.0.0.1"), .authorities_file = other});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, base::error_code::unavailable);
  EXPECT_NE(reply.error().message.find("certificate"), std::string::npos) << reply.error().message;
}

TEST_F(Https, RefusesAnotherNamesCertificate) {
  const pem_pair who = make_certificate("DNS:elsewhere.example");
  const tls_server server(who);
  const auto reply =
      http_fetch({.url = server.url("127.0.0.1"), .authorities_file = write(who.certificate)});
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, base::error_code::unavailable);
}

TEST_F(Https, SaysWhichAuthoritiesAreMissing) {
  const auto reply =
      http_fetch({.url = "https://127.0.0.1:1/", .authorities_file = "/nowhere/ca.pem"});
  ASSERT_FALSE(reply);
  EXPECT_NE(reply.error().message.find("/nowhere/ca.pem"), std::string::npos);
}

}  // namespace
}  // namespace troupe::net
