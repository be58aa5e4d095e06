#include "serving/json_text.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace troupe::serving {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

bool continues(unsigned char byte) { return (byte & 0xC0U) == 0x80U; }

void append_control(std::string& out, unsigned char byte) {
  switch (byte) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
  }
}

}  // namespace

std::size_t utf8_character_bytes(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t offset) {
    return at + offset < text.size() ? static_cast<unsigned char>(text[at + offset]) : 0U;
  };
  const unsigned first = byte(0);
  if (at >= text.size()) return 0;
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;  // a continuation, overlong, too large
  const unsigned second = byte(1);
  if (!continues(static_cast<unsigned char>(second))) return 0;
  if (first < 0xE0) return 2;
  if (!continues(static_cast<unsigned char>(byte(2)))) return 0;
  if (first < 0xF0) {
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return 0;
    return 3;
  }
  if (!continues(static_cast<unsigned char>(byte(3)))) return 0;
  if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return 0;
  return 4;
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;  // where the part begins that is copied as it is
  std::size_t at = 0;
  const auto copy = [&] { out += text.substr(plain, at - plain); };
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\' && byte != 0x7F) {
      ++at;
      continue;
    }
    if (const std::size_t bytes = utf8_character_bytes(text, at); byte >= 0x80 && bytes != 0) {
      at += bytes;
      continue;
    }
    copy();
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += static_cast<char>(byte);
    } else if (byte < 0x80) {
      append_control(out, byte);
    } else {
      out += replacement;
    }
    plain = ++at;
  }
  copy();
  out += '"';
}

void append_json_string_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    append_json_string(out, text);
  }
}

void append_json_logprob(std::string& out, float value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{:.9g}", static_cast<double>(value));
  } else {
    out += "-9999.0";
  }
}

void append_json_integers(std::string& out, std::span<const std::int32_t> values) {
  out += '[';
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i != 0) out += ',';
    fmt::format_to(std::back_inserter(out), "{}", values[i]);
  }
  out += ']';
}

}  // namespace troupe::serving
