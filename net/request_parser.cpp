#include "net/request_parser.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "net/http_syntax.hpp"

namespace troupe::net {
namespace {

// The longest registered method has 17 characters (UPDATEREDIRECTREF).
constexpr std::size_t method_bytes_max = 32;
constexpr std::size_t version_bytes = sizeof(" HTTP/1.1\r\n") - 1;
// 16 hexadecimal digits and an extension that anybody sends.
constexpr std::size_t chunk_line_bytes_max = 256;

// Fields that count once: two of them would leave open which one holds.
constexpr std::array<std::string_view, 7> single_fields = {
    "authorization", "content-encoding", "content-length", "content-type", "expect",
    "host",          "transfer-encoding"};

std::size_t count_fields(const http_request& request, std::string_view name) {
  return static_cast<std::size_t>(std::ranges::count(request.headers, name, &header_field::first));
}

bool has_prefix_ignoring_case(std::string_view text, std::string_view prefix) {
  return equal_ignoring_case(text.substr(0, prefix.size()), prefix);
}

}  // namespace

std::string_view http_request::header(std::string_view name) const noexcept {
  return find_field(headers, name);
}

std::string_view http_request::path() const noexcept {
  return std::string_view(target).substr(0, target.find('?'));
}

void request_parser::refuse(int status, std::string_view what) noexcept {
  if (status_ != 0) return;
  status_ = status;
  what_ = what;
}

void request_parser::reset() { *this = request_parser(*limits_); }

http_request request_parser::take() {
  http_request request = std::move(request_);
  reset();
  return request;
}

std::size_t request_parser::feed(std::string_view bytes) {
  std::size_t used = 0;
  while (used < bytes.size() && !complete() && !refused()) {
    const std::string_view rest = bytes.substr(used);
    const bool data = state_ == state::fixed_body || state_ == state::chunk_data;
    used += data ? feed_body(rest) : feed_line(rest);
  }
  return used;
}

std::size_t request_parser::feed_body(std::string_view bytes) {
  const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(body_left_, bytes.size()));
  request_.body.append(bytes.substr(0, n));
  body_left_ -= n;
  if (body_left_ == 0) {
    state_ = state_ == state::fixed_body ? state::complete : state::chunk_end;
  }
  return n;
}

std::size_t request_parser::line_bytes_max() const noexcept {
  switch (state_) {
    case state::chunk_size:
      return chunk_line_bytes_max;
    case state::chunk_end:
      return 2;
    default:
      return limits_->header_bytes_max - head_bytes_;
  }
}

std::size_t request_parser::feed_line(std::string_view bytes) {
  const std::size_t feed = bytes.find('\n');
  const std::size_t n = feed == std::string_view::npos ? bytes.size() : feed + 1;
  const std::size_t room = line_bytes_max() - line_.size();
  line_.append(bytes.substr(0, std::min(n, room)));
  check_partial_line();
  if (refused()) return n;
  if (n > room) {
    if (state_ == state::chunk_size || state_ == state::chunk_end) {
      refuse(400, "malformed chunk in the body");
    } else {
      refuse(431, "the header is too long");
    }
    return n;
  }
  if (feed == std::string_view::npos) return n;
  if (line_.size() < 2 || line_[line_.size() - 2] != '\r') {
    refuse(400, "a line that does not end in CR LF");
    return n;
  }
  const std::string line = std::exchange(line_, {});
  if (state_ != state::chunk_size && state_ != state::chunk_end) head_bytes_ += line.size();
  on_line(std::string_view(line).substr(0, line.size() - 2));
  return n;
}

// What can be refused before the line has ended, so that it need not be waited for.
void request_parser::check_partial_line() {
  if (line_.empty()) return;
  if (state_ == state::chunk_size) {
    if (!parse_hex(std::string_view(line_).substr(0, 1))) refuse(400, "malformed chunk size");
    return;
  }
  if (state_ == state::chunk_end) {
    if (line_[0] != '\r') refuse(400, "a chunk that is longer than its size");
    return;
  }
  if (state_ != state::request_line) return;
  if (line_[0] != '\r' && !is_token(std::string_view(line_).substr(0, 1))) {
    refuse(400, "this is not HTTP/1.1");
    return;
  }
  const std::size_t space = line_.find(' ');
  if (std::min(space, line_.size()) > method_bytes_max) {
    refuse(400, "malformed request line");
  } else if (space != std::string::npos &&
             line_.size() - space - 1 > limits_->target_bytes_max + version_bytes) {
    refuse(414, "the request target is too long");
  }
}

void request_parser::on_line(std::string_view line) {
  switch (state_) {
    case state::request_line:
      if (line.empty() && !skipped_empty_line_) {
        skipped_empty_line_ = true;  // RFC 9112 section 2.2: some clients end a body with one
        return;
      }
      on_request_line(line);
      return;
    case state::fields:
      if (line.empty()) {
        finish_head();
      } else {
        on_field(line, true);
      }
      return;
    case state::chunk_size:
      on_chunk_size(line);
      return;
    case state::chunk_end:
      state_ = state::chunk_size;  // the line had room for CR LF only
      return;
    case state::trailers:
      if (line.empty()) {
        state_ = state::complete;
      } else {
        on_field(line, false);
      }
      return;
    default:
      return;
  }
}

void request_parser::on_request_line(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !is_token(line.substr(0, first))) {
    refuse(400, "malformed request line");
    return;
  }
  request_.method = line.substr(0, first);
  on_version(line.substr(last + 1));
  if (refused()) return;
  if (request_.method == "CONNECT") {
    refuse(501, "CONNECT is not supported");
    return;
  }
  on_target(line.substr(first + 1, last - first - 1));
  state_ = state::fields;
}

void request_parser::on_version(std::string_view version) {
  http_1_0_ = version == "HTTP/1.0";
  if (http_1_0_ || version == "HTTP/1.1") return;
  const bool formed = version.size() == 8 && version.substr(0, 5) == "HTTP/" &&
                      is_digits(version.substr(5, 1)) && version[6] == '.' &&
                      is_digits(version.substr(7, 1));
  refuse(formed ? 505 : 400, formed ? "only HTTP/1.1 and HTTP/1.0" : "malformed request line");
}

void request_parser::on_target(std::string_view target) {
  if (target.size() > limits_->target_bytes_max) {
    refuse(414, "the request target is too long");
    return;
  }
  if (!is_target(target)) {
    refuse(400, "malformed request target");
    return;
  }
  if (target[0] == '/' || (target == "*" && request_.method == "OPTIONS")) {
    request_.target = target;
    return;
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (has_prefix_ignoring_case(target, scheme)) {
      on_absolute_target(target, scheme.size());
      return;
    }
  }
  refuse(400, "malformed request target");
}

// RFC 9112 section 3.2.2: to be accepted, and its authority replaces the Host field.
void request_parser::on_absolute_target(std::string_view target, std::size_t scheme_bytes) {
  const std::size_t end = std::min(target.find_first_of("/?", scheme_bytes), target.size());
  authority_ = target.substr(scheme_bytes, end - scheme_bytes);
  if (authority_.empty() || !is_authority(authority_)) {
    refuse(400, "malformed request target");
    return;
  }
  absolute_ = true;
  request_.target = target.substr(end);
  if (request_.target.empty() || request_.target[0] != '/') request_.target.insert(0, 1, '/');
}

// Trailers are checked like fields and left out: nothing that comes after the body may change what
// was decided before it.
bool request_parser::on_field(std::string_view line, bool keep) {
  if (line[0] == ' ' || line[0] == '\t') {
    refuse(400, "a folded header line");
    return false;
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
    refuse(400, "malformed header name");
    return false;
  }
  const std::string_view value = trim(line.substr(colon + 1));
  if (!is_field_value(value)) {
    refuse(400, "a control character in a header value");
    return false;
  }
  if (++field_count_ > limits_->header_fields_max) {
    refuse(431, "too many header fields");
    return false;
  }
  if (keep) request_.headers.emplace_back(lower(line.substr(0, colon)), value);
  return true;
}

void request_parser::on_chunk_size(std::string_view line) {
  const std::size_t digits = std::min(line.find(';'), line.size());
  const std::optional<std::uint64_t> size = parse_hex(line.substr(0, digits));
  extension_bytes_ += line.size() - digits;
  if (!size || !is_field_value(line.substr(digits))) {
    refuse(400, "malformed chunk size");
  } else if (extension_bytes_ > limits_->header_bytes_max) {
    refuse(400, "too many bytes of chunk extensions");
  } else if (*size > limits_->body_bytes_max - request_.body.size()) {
    refuse(413, "the body is too long");
  } else if (*size == 0) {
    state_ = state::trailers;  // they share the bounds of the header
  } else {
    body_left_ = *size;
    state_ = state::chunk_data;
  }
}

void request_parser::finish_head() {
  check_single_fields();
  check_host();
  check_connection();
  frame_body();
  check_expectation();
  head_whole_ = !refused();
}

void request_parser::check_single_fields() {
  for (const std::string_view name : single_fields) {
    if (count_fields(request_, name) > 1) refuse(400, "a header field that may come only once");
  }
}

void request_parser::check_host() {
  if (count_fields(request_, "host") == 0) {
    if (!http_1_0_) refuse(400, "no Host header");
    if (absolute_) request_.headers.emplace_back("host", authority_);
    return;
  }
  const auto host = std::ranges::find(request_.headers, "host", &header_field::first);
  if (!is_authority(host->second)) refuse(400, "malformed Host header");
  if (absolute_) host->second = authority_;
}

void request_parser::check_connection() {
  for (const header_field& field : request_.headers) {
    if (field.first != "connection") continue;
    for (const std::string_view option : list_elements(field.second)) {
      close_ = close_ || equal_ignoring_case(option, "close");
    }
  }
}

void request_parser::frame_body() {
  const bool coded = count_fields(request_, "transfer-encoding") != 0;
  const bool sized = count_fields(request_, "content-length") != 0;
  if (coded && sized) {
    refuse(400, "both Content-Length and Transfer-Encoding");
  } else if (coded) {
    frame_coded_body(request_.header("transfer-encoding"));
  } else if (sized) {
    const std::string_view text = request_.header("content-length");
    const std::optional<std::uint64_t> length = parse_decimal(text);
    if (!is_digits(text)) {
      refuse(400, "Content-Length is not a number");
    } else if (!length || *length > limits_->body_bytes_max) {
      refuse(413, "the body is too long");
    } else {
      body_left_ = *length;
      state_ = *length == 0 ? state::complete : state::fixed_body;
    }
  } else {
    state_ = state::complete;
  }
  const std::string_view encoding = request_.header("content-encoding");
  if (!encoding.empty() && !equal_ignoring_case(encoding, "identity")) {
    refuse(415, "compressed bodies are not supported: send it without Content-Encoding");
  }
}

void request_parser::frame_coded_body(std::string_view coding) {
  if (http_1_0_) {
    refuse(400, "Transfer-Encoding in HTTP/1.0");
  } else if (equal_ignoring_case(coding, "chunked")) {
    state_ = state::chunk_size;
  } else if (is_token(coding)) {
    refuse(501, "only the chunked transfer coding is supported");
  } else {
    refuse(400, "Transfer-Encoding is not exactly chunked");
  }
}

void request_parser::check_expectation() {
  const std::string_view expectation = request_.header("expect");
  if (expectation.empty() || http_1_0_) return;
  if (!equal_ignoring_case(expectation, "100-continue")) {
    refuse(417, "only 100-continue can be expected");
    return;
  }
  continue_expected_ = state_ != state::complete;
}

}  // namespace troupe::net
