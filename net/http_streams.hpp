// Many HTTP/1.1 calls at once, their answers piece by piece: what a load generator needs. One
// server, one thread (the caller's, within run()), one connection a call.
//
//   TROUPE_TRY(streams, net::http_streams::open({.url = "http://127.0.0.1:8000/v1/completions"}));
//   streams->at(begin + 10ms, [&] { streams->post(body, {.piece = ..., .end = ...}); });
//   streams->run();                      // until nothing is left to do
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "net/http_field.hpp"

namespace troupe::net {

struct http_streams_options {
  std::string url;  // as http_call's
  std::vector<header_field> headers = {};
  std::chrono::milliseconds patience{600'000};  // for one call
  std::size_t head_bytes_max = 64U << 10;
  std::size_t error_bytes_max = 4U << 10;  // kept of an answer that is not 200
};

struct http_stream_end {
  int status = 0;                         // 0: no answer
  std::string text;                       // of an answer that is not 200, its beginning
  std::optional<base::error> error = {};  // the call was cut: deadline_exceeded, unavailable ...
};

struct http_streams_calls {
  std::function<void(std::string_view bytes)> piece;  // of an answer with status 200
  std::function<void(http_stream_end end)> end;       // once, last
};

class http_streams {
 public:
  // Looks the server's name up. Errors: invalid_argument (URL, header), not_found (name),
  // unavailable (no resolver).
  [[nodiscard]] static base::result<std::unique_ptr<http_streams>> open(
      http_streams_options options);
  http_streams(const http_streams&) = delete;
  http_streams& operator=(const http_streams&) = delete;
  ~http_streams();

  // All on the thread of run(), or before it.
  void at(std::chrono::steady_clock::time_point when, std::function<void()> call);
  void post(const std::string& body, http_streams_calls calls);
  void run();

 private:
  class impl;
  explicit http_streams(std::unique_ptr<impl> made);
  std::unique_ptr<impl> impl_;
};

}  // namespace troupe::net
