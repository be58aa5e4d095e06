// An HTTP/1.1 client for one request at a time: blocks the calling thread, never past its deadline.
// Each call has its own connection, which it closes. Any thread; calls do not know of each other.
//
//   TROUPE_TRY(reply, net::http_fetch({.url = "http://127.0.0.1:8000/health"}));
//   net::http_stream({.method = "POST", .url = url, .body = json}, {.piece = [&](auto bytes) {
//     events.feed(bytes);
//     return !enough;  // false closes the connection
//   }});
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "net/http_field.hpp"

namespace troupe::net {

struct http_call {
  std::string method = "GET";
  // http[s]://host[:port]/path?query; host is a name, an IPv4 or a [IPv6] address.
  std::string url;
  std::vector<header_field> headers = {};  // host, content-length and connection are made here
  std::string body = {};
  std::chrono::milliseconds deadline{30'000};  // for everything, from looking up the name on
  // Longest time without a byte of the answer; 0: only the deadline counts.
  std::chrono::milliseconds silence_patience{0};
  std::size_t head_bytes_max = 64U << 10;
  std::size_t body_bytes_max = 64U << 20;  // of a fetched answer; a stream's pieces are not summed
  // PEM with the authorities that an https server's certificate may be from; empty: the system's.
  std::string authorities_file = {};
  std::stop_token stop = {};  // ends the call from another thread
};

struct http_reply {
  int status = 0;
  std::vector<header_field> headers;  // names in lower case
  std::string body;                   // empty where pieces were handed out

  [[nodiscard]] std::string_view header(std::string_view name) const noexcept;
};

// Called on the calling thread; false ends the call and closes the connection.
struct http_stream_calls {
  std::function<bool(const http_reply& head)> head = {};  // before the first piece
  std::function<bool(std::string_view bytes)> piece = {};
};

// The whole answer, whatever its status.
// Errors: invalid_argument (URL, method, header), not_found (host name, authorities), unavailable
// (refused, reset, ended early, a certificate that is not trusted), deadline_exceeded, cancelled,
// resource_exhausted (longer than a bound), data_loss (not HTTP).
[[nodiscard]] base::result<http_reply> http_fetch(const http_call& call);

// The answer piece by piece, as the bytes come. Returns the head when the body is complete; errors
// as above, cancelled also when a callback returned false.
[[nodiscard]] base::result<http_reply> http_stream(const http_call& call,
                                                   const http_stream_calls& calls);

// The parts of a URL.
struct http_url {
  bool tls = false;            // https
  std::string host = {};       // without brackets
  std::string port = {};       // digits; 80 or 443 where none is given
  std::string authority = {};  // as the Host field has it
  std::string target = {};     // begins with '/'
};

// Errors: invalid_argument.
[[nodiscard]] base::result<http_url> parse_http_url(std::string_view url);

}  // namespace troupe::net
