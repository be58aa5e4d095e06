#include "serving/api_error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "serving/json_text.hpp"

namespace troupe::serving {
namespace {

constexpr std::string_view request_error = "invalid_request_error";
constexpr std::string_view server_error = "server_error";

// The whole table. Clients retry 408, 409, 429 and 5xx by themselves, so what a retry cannot mend
// has another status.
using enum base::error_code;
constexpr std::array<http_outcome, 16> outcomes = {{
    {cancelled, 499, request_error, 0, "the client went away; nobody reads this"},
    {unknown, 500, server_error, 0, "a library gave no reason: see the log"},
    {invalid_argument, 400, request_error, 0, "change the parameter that is named"},
    {deadline_exceeded, 504, server_error, 0, "the request took longer than allowed: ask for less"},
    {not_found, 404, request_error, 0, "no such model or path"},
    {already_exists, 400, request_error, 0, "choose another name"},
    {permission_denied, 403, request_error, 0, "this key may not do that"},
    {resource_exhausted, 503, server_error, 1, "queues are full: come back, or add a gang"},
    {failed_precondition, 400, request_error, 0, "the model or its settings do not have that"},
    {aborted, 503, server_error, 1, "the gang lost a rank and forms again: send it again"},
    {out_of_range, 400, request_error, 0, "change the parameter that is named"},
    {unimplemented, 400, request_error, 0, "known, not built yet: leave the parameter out"},
    {internal, 500, server_error, 0, "our defect: see the log"},
    {unavailable, 503, server_error, 1, "not ready, draining, or a rank was lost: send it again"},
    {data_loss, 500, server_error, 0, "bytes were corrupt: see the log"},
    {unauthenticated, 401, request_error, 0, "send one of the server's API keys"},
}};

// The code of a status that no error of ours stands behind.
std::string_view code_of_status(int status) noexcept {
  switch (status) {
    case 401:
      return "invalid_api_key";
    case 404:
      return "not_found";
    case 405:
      return "method_not_allowed";
    case 408:
      return "request_timeout";
    case 413:
      return "content_too_large";
    case 414:
      return "uri_too_long";
    case 415:
      return "unsupported_media_type";
    case 431:
      return "header_fields_too_large";
    case 503:
      return "resource_exhausted";
    default:
      return status < 500 ? "bad_request" : "internal";
  }
}

}  // namespace

const http_outcome& outcome_of(base::error_code code) noexcept {
  const auto* const found = std::find_if(outcomes.begin(), outcomes.end(),
                                         [&](const http_outcome& row) { return row.code == code; });
  return found != outcomes.end() ? *found : outcomes[1];
}

api_error::api_error(const base::error& of) : code(base::to_string(of.code)), message(of.message) {
  const http_outcome& row = outcome_of(of.code);
  status = row.status;
  type = row.type;
  retry_after_s = of.retryable ? std::max(1, row.retry_after_s) : row.retry_after_s;
}

std::string api_error::body() const {
  std::string out = R"({"error":{"message":)";
  append_json_string(out, message);
  out += R"(,"type":)";
  append_json_string(out, type);
  out += R"(,"param":)";
  append_json_string_or_null(out, param);
  out += R"(,"code":)";
  append_json_string_or_null(out, code);
  out += "}}";
  return out;
}

std::vector<net::header_field> api_error::headers() const {
  std::vector<net::header_field> fields = {{"content-type", "application/json"}};
  if (retry_after_s > 0) fields.emplace_back("retry-after", std::to_string(retry_after_s));
  if (status == 401) fields.emplace_back("www-authenticate", "Bearer");
  if (close) fields.emplace_back("connection", "close");
  return fields;
}

tl::unexpected<api_error> refuse(std::string param, std::string message, std::string_view code) {
  api_error made;
  made.status = 400;
  made.type = request_error;
  made.code = code;
  made.message = param.empty() ? std::move(message) : fmt::format("{}: {}", param, message);
  made.param = std::move(param);
  return tl::unexpected<api_error>(std::move(made));
}

api_error error_of_status(int status, std::string_view what) {
  api_error made;
  made.status = status;
  made.code = code_of_status(status);
  made.type = status < 500 ? request_error : server_error;
  made.message = what;
  return made;
}

void send_error(net::response& to, const api_error& error) {
  to.send(error.status, error.headers(), error.body());
}

}  // namespace troupe::serving
