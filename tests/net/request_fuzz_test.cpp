// Mutated requests, two readers: this folder's parser and Boost.Beast's. Whatever ours takes, Beast
// must take for the same message with the same end; anything else is how requests are smuggled.
#include <gtest/gtest.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "net/http_syntax.hpp"
#include "net/request_parser.hpp"

namespace troupe::net {
namespace {

namespace http = boost::beast::http;

constexpr std::array<std::string_view, 8> seeds = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /v1/models?x=1 HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
    "chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: "
    "1\r\n\r\n",
    "PUT /x HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "HEAD /h HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n",
};

constexpr std::array<std::string_view, 24> pieces = {"\r\n",
                                                     "\n",
                                                     "\r",
                                                     " ",
                                                     "\t",
                                                     ":",
                                                     "0",
                                                     "\r\n\r\n",
                                                     "Host: b\r\n",
                                                     "-",
                                                     "chunked",
                                                     ";",
                                                     "\"",
                                                     ",",
                                                     "Transfer-Encoding: chunked\r\n",
                                                     "Content-Length: 3\r\n",
                                                     "Content-Length: 5\r\n",
                                                     "Content-Length : 5\r\n",
                                                     "HTTP/1.0",
                                                     "ffffffffffffffff",
                                                     "Transfer-Encoding: x\r\n",
                                                     "\x0b",
                                                     "\xff",
                                                     " folded\r\n"};

struct random_source {
  std::mt19937_64 engine;
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine() % n); }
};

std::string mutate(random_source& random) {
  std::string bytes(seeds.at(random.below(seeds.size())));
  const std::size_t changes = 1 + random.below(4);
  for (std::size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const std::size_t at = random.below(bytes.size());
    switch (random.below(5)) {
      case 0:
        bytes[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        bytes.erase(at, 1 + random.below(3));
        break;
      case 2:
        bytes.insert(at, pieces.at(random.below(pieces.size())));
        break;
      case 3: {  // a line twice
        const std::size_t from = bytes.rfind('\n', at) + 1;
        const std::size_t to = std::min(bytes.find('\n', at), bytes.size() - 1) + 1;
        if (from < to) bytes.insert(to, bytes.substr(from, to - from));
        break;
      }
      default: {  // after the end of a line, where new fields begin
        const std::size_t end = bytes.find('\n', at);
        if (end != std::string::npos) {
          bytes.insert(end + 1, pieces.at(random.below(pieces.size())));
        }
      }
    }
  }
  return bytes;
}

struct message {
  std::string method;
  std::string target;
  std::string body;
  std::size_t used = 0;
};

std::optional<message> read_with_ours(std::string_view bytes, std::size_t piece) {
  static const http_limits limits;
  request_parser parser(limits);
  std::size_t used = 0;
  while (used < bytes.size() && !parser.complete() && !parser.refused()) {
    used += parser.feed(bytes.substr(used, piece));
  }
  if (!parser.complete() || parser.refused()) return std::nullopt;
  http_request request = parser.take();
  return message{request.method, request.target, request.body, used};
}

std::optional<message> read_with_beast(std::string_view bytes) {
  http::request_parser<http::string_body> parser;
  parser.eager(true);
  parser.header_limit(64 << 10);
  boost::system::error_code error;
  std::size_t used = 0;
  while (used < bytes.size() && !parser.is_done()) {
    used += parser.put(boost::asio::buffer(bytes.data() + used, bytes.size() - used), error);
    if (error) return std::nullopt;
  }
  if (!parser.is_done()) return std::nullopt;
  const auto& request = parser.get();
  return message{std::string(request.method_string()), std::string(request.target()),
                 request.body(), used};
}

// Where Beast refuses what is harmless and the RFC allows.
bool only_beast_refuses(std::string_view bytes) {
  const std::string text = lower(bytes);
  return text.find("connection:") != text.npos ||  // its check of the list
         text.find(';') != text.npos ||            // its grammar of chunk extensions
         text.find("content-length") != text.rfind("content-length") ||  // in a trailer
         text.find("transfer-encoding") != text.rfind("transfer-encoding") ||
         (text.find("content-length") != text.npos && text.find("transfer-encoding") != text.npos);
}

TEST(RequestFuzz, TakesNothingThatAnotherReaderUnderstandsDifferently) {
  constexpr std::uint64_t seed = 20261121;
  random_source random{std::mt19937_64(seed)};
  int taken = 0;
  int excused = 0;
  for (int i = 0; i < 60'000; ++i) {
    const std::string bytes = mutate(random);
    const auto ours = read_with_ours(bytes, bytes.size());
    const auto in_pieces = read_with_ours(bytes, 1 + random.below(9));
    ASSERT_EQ(ours.has_value(), in_pieces.has_value()) << "seed " << seed << " case " << i;
    if (!ours) continue;
    ++taken;
    EXPECT_EQ(ours->used, in_pieces->used) << "seed " << seed << " case " << i;
    EXPECT_EQ(ours->body, in_pieces->body) << "seed " << seed << " case " << i;
    std::string_view rest = bytes;
    if (rest.starts_with("\r\n")) rest.remove_prefix(2);  // allowed, and Beast does not
    const auto beast = read_with_beast(rest);
    if (!beast && only_beast_refuses(bytes)) {
      ++excused;
      continue;
    }
    ASSERT_TRUE(beast.has_value()) << "seed " << seed << " case " << i << ":\n" << bytes;
    EXPECT_EQ(ours->method, beast->method) << bytes;
    EXPECT_EQ(ours->body, beast->body) << bytes;
    EXPECT_EQ(ours->used - (bytes.size() - rest.size()), beast->used) << bytes;
    if (beast->target[0] == '/') {
      EXPECT_EQ(ours->target, beast->target) << bytes;
    }
  }
  EXPECT_GT(taken, 5'000) << "the mutations leave too little that is valid";
  EXPECT_LT(excused, taken / 4);
}

TEST(RequestFuzz, SurvivesRandomBytes) {
  constexpr std::uint64_t seed = 7;
  random_source random{std::mt19937_64(seed)};
  for (int i = 0; i < 5'000; ++i) {
    std::string bytes(random.below(200), '\0');
    for (char& c : bytes) c = static_cast<char>(random.below(256));
    EXPECT_FALSE(read_with_ours(bytes, 1 + random.below(50)).has_value()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace troupe::net
