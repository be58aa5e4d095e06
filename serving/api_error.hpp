// Errors as OpenAI's clients know them, and the one table from our codes to HTTP.
//
//   return refuse("temperature", "expected a number from 0 to 2, got 3");
//   respond(api_error(gang_error));
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "net/http_server.hpp"

namespace troupe::serving {

// A row of the table: what a client sees of an error code, and whether and when it may try again.
struct http_outcome {
  base::error_code code;
  int status;
  std::string_view type;    // OpenAI's error.type
  int retry_after_s;        // Units: seconds; 0: trying the same again does not help
  std::string_view advice;  // for people: when this is seen and what to do
};

[[nodiscard]] const http_outcome& outcome_of(base::error_code code) noexcept;

struct api_error {
  int status = 500;
  std::string_view type = "server_error";  // a string literal
  std::string code;                        // empty: null
  std::string param;                       // empty: null
  std::string message;
  int retry_after_s = 0;
  bool close = false;  // `connection: close`

  api_error() = default;
  // By the table. An error that says it is retryable gets a Retry-After in any case.
  api_error(const base::error& of);  // NOLINT: implicit, so that TROUPE_TRY passes errors on

  [[nodiscard]] std::string body() const;
  // content-type, Retry-After, ...
  [[nodiscard]] std::vector<net::header_field> headers() const;
};

template <class T>
using api_result = tl::expected<T, api_error>;

// A 400 that names a parameter. `code` is invalid_value, invalid_type, unsupported_parameter ...
[[nodiscard]] tl::unexpected<api_error> refuse(std::string param, std::string message,
                                               std::string_view code = "invalid_value");

// For a status that has no error of ours behind it (413, 431, 404 ...), with its code.
[[nodiscard]] api_error error_of_status(int status, std::string_view what);

void send_error(net::response& to, const api_error& error);

}  // namespace troupe::serving
