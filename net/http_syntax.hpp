// The small grammar of HTTP/1.1 that reading a request and writing an answer share. Pure functions,
// any thread. Source: RFC 9110 section 5, RFC 9112 sections 2 to 7.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_field.hpp"

namespace troupe::net {

// One or more tchar: what a method and a field name are made of.
[[nodiscard]] bool is_token(std::string_view text) noexcept;
// Tab, space, visible and obs-text bytes: no control byte, so no CR, LF or NUL. May be empty.
[[nodiscard]] bool is_field_value(std::string_view text) noexcept;
// Visible ASCII without '#': what a request target is made of. Not empty.
[[nodiscard]] bool is_target(std::string_view text) noexcept;
// A host with an optional port, as in the Host field; may be empty. No user part, no list.
[[nodiscard]] bool is_authority(std::string_view text) noexcept;

// Digits only (no sign, no space, no prefix); nothing when empty or above 64 bits.
[[nodiscard]] std::optional<std::uint64_t> parse_decimal(std::string_view text) noexcept;
[[nodiscard]] std::optional<std::uint64_t> parse_hex(std::string_view text) noexcept;
[[nodiscard]] bool is_digits(std::string_view text) noexcept;

[[nodiscard]] std::string lower(std::string_view text);
[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept;
// Without the spaces and tabs around it.
[[nodiscard]] std::string_view trim(std::string_view text) noexcept;
// The elements of a comma-separated list, trimmed, the empty ones left out.
[[nodiscard]] std::vector<std::string_view> list_elements(std::string_view text);

[[nodiscard]] std::string_view reason_phrase(int status) noexcept;
// "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale.
[[nodiscard]] std::string http_date(std::time_t when);

// How the reader of an answer learns where its body ends.
enum class body_framing { length, chunked, until_close, none };

struct answer_head {
  int status = 200;
  const std::vector<header_field>* fields = nullptr;
  body_framing framing = body_framing::none;
  std::size_t length = 0;
  bool close = false;
  std::optional<std::time_t> date = std::nullopt;  // RFC 9110 section 6.6.1: none without a clock
};

// Status line and fields with the empty line. Framing, connection and date fields are made here:
// those of the caller are left out, as is a field whose name is no token; control bytes in a value
// become spaces, so that nothing echoed from a request can split the answer.
[[nodiscard]] std::string format_answer_head(const answer_head& head);

}  // namespace troupe::net
