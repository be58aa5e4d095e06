#include "serving/page.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <span>

#include "base/check.hpp"
#include "base/sha256.hpp"

namespace troupe::serving {
namespace {

std::string base64(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const auto byte = [&](std::size_t offset) {
      return at + offset < bytes.size() ? bytes[at + offset] : std::uint8_t{0};
    };
    const unsigned group = (byte(0) << 16U) | (byte(1) << 8U) | byte(2);
    for (unsigned i = 0; i < 4; ++i) {
      out += at + i > bytes.size() ? '=' : digits[(group >> (18U - 6U * i)) & 63U];
    }
  }
  return out;
}

// What is between <tag> and </tag>, hashed as browsers do.
std::string hash_of(std::string_view html, std::string_view tag) {
  const std::string open = fmt::format("<{}>", tag);
  const std::size_t begin = html.find(open);
  const std::size_t end = html.find(fmt::format("</{}>", tag));
  TROUPE_CHECK(begin != std::string_view::npos && end != std::string_view::npos);
  const std::size_t first = begin + open.size();
  return "'sha256-" + base64(base::sha256_of(html.substr(first, end - first))) + "'";
}

}  // namespace

std::string page_policy() {
  return fmt::format(
      "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; "
      "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      hash_of(page_html(), "style"), hash_of(page_html(), "script"));
}

}  // namespace troupe::serving
