#include "serving/api_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace troupe::serving {
namespace {

constexpr std::size_t hash_digits = 64;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::optional<std::uint8_t> digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<std::uint8_t>(c - 'A' + 10);
  return std::nullopt;
}

std::optional<base::digest> from_hex(std::string_view text) {
  if (text.size() != hash_digits) return std::nullopt;
  base::digest out{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto high = digit(text[2 * i]);
    const auto low = digit(text[2 * i + 1]);
    if (!high || !low) return std::nullopt;
    out[i] = static_cast<std::uint8_t>(*high * 16U + *low);
  }
  return out;
}

// The reason why a line is refused never holds the line: it may be most of a key.
base::result<base::digest> parse_line(std::string_view line) {
  const auto bad = [](std::string reason) {
    return base::fail(base::error_code::invalid_argument, "serving", std::move(reason));
  };
  if (const std::size_t colon = line.rfind(':');
      colon != std::string_view::npos && line.size() - colon - 1 == hash_digits) {
    if (const auto hash = from_hex(line.substr(colon + 1))) return *hash;
  }
  if (line.find_first_of(" \t") != std::string_view::npos) {
    return bad("a key has no blanks; write one key a line, or name:sha256");
  }
  if (line.size() < api_keys::key_bytes_min || line.size() > api_keys::key_bytes_max) {
    return bad(fmt::format("a key has {} to {} characters, this one {}", api_keys::key_bytes_min,
                           api_keys::key_bytes_max, line.size()));
  }
  return base::sha256_of(line);
}

bool begins_with_bearer(std::string_view text) {
  constexpr std::string_view scheme = "bearer ";
  if (text.size() < scheme.size()) return false;
  return std::equal(scheme.begin(), scheme.end(), text.begin(), [](char expected, char given) {
    return (given >= 'A' && given <= 'Z' ? static_cast<char>(given - 'A' + 'a') : given) ==
           expected;
  });
}

}  // namespace

base::result<api_keys> api_keys::parse(std::string_view text, std::string_view file) {
  api_keys made;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    auto hash = parse_line(line);
    if (!hash) {
      return base::fail(hash.error().code, "serving",
                        fmt::format("{}: line {}: {}", file, number, hash.error().message));
    }
    if (made.hashes_.size() == keys_max) {
      return base::fail(base::error_code::invalid_argument, "serving",
                        fmt::format("{}: more than {} keys", file, keys_max));
    }
    made.hashes_.push_back(*hash);
  }
  if (made.hashes_.empty()) {
    return base::fail(base::error_code::invalid_argument, "serving",
                      fmt::format("{}: no key in it; write one a line", file));
  }
  return made;
}

std::optional<std::string> api_keys::tenant_of(std::string_view authorization) const {
  if (hashes_.empty()) return std::string();
  if (!begins_with_bearer(authorization)) return std::nullopt;
  const std::string_view key = trimmed(authorization.substr(7));
  if (key.size() > key_bytes_max) return std::nullopt;
  const base::digest hash = base::sha256_of(key);
  bool found = false;
  for (const base::digest& known : hashes_) {
    const bool same = base::equal_in_constant_time(hash, known);
    found = found || same;
  }
  if (!found) return std::nullopt;
  return base::to_hex(hash);
}

}  // namespace troupe::serving
