#include "serving/token_text.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "serving/json_text.hpp"

namespace troupe::serving {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

// Byte-level vocabularies write each byte as a printable character: those that are printable in
// Latin-1 as themselves, the others as U+0100, U+0101 ... in order (GPT-2's alphabet).
std::optional<char> byte_of(char32_t written) {
  const auto itself = [](char32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
           (byte >= 0xAE && byte <= 0xFF);
  };
  if (written < 0x100) {
    if (!itself(written)) return std::nullopt;
    return static_cast<char>(static_cast<unsigned char>(written));
  }
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 0x100; ++byte) {
    if (itself(byte)) continue;
    if (next == written) return static_cast<char>(static_cast<unsigned char>(byte));
    ++next;
  }
  return std::nullopt;
}

// The character of `bytes` bytes at the front, which is valid UTF-8.
char32_t code_point(std::string_view text, std::size_t bytes) {
  constexpr std::array<unsigned, 5> lead_bits = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t out = static_cast<unsigned char>(text[0]) & lead_bits[bytes];
  for (std::size_t i = 1; i < bytes; ++i) {
    out = (out << 6U) | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  return out;
}

std::optional<std::string> bytes_of_spelling(std::string_view spelled) {
  if (spelled.size() == 6 && spelled.starts_with("<0x") && spelled.ends_with('>')) {
    unsigned value = 0;
    const char* const end = spelled.data() + 5;
    if (std::from_chars(spelled.data() + 3, end, value, 16).ptr == end) {
      return std::string(1, static_cast<char>(static_cast<unsigned char>(value)));
    }
  }
  std::string out;
  for (std::size_t at = 0; at < spelled.size();) {
    const std::size_t bytes = utf8_character_bytes(spelled, at);
    if (bytes == 0) return std::nullopt;
    const auto byte = byte_of(code_point(spelled.substr(at), bytes));
    if (!byte) return std::nullopt;
    out += *byte;
    at += bytes;
  }
  return out;
}

std::string readable(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t size = utf8_character_bytes(bytes, at);
    if (size == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[at++]));
    } else {
      out += bytes.substr(at, size);
      at += size;
    }
  }
  return out;
}

}  // namespace

token_texts::token_texts(const text::tokenizer* tokenizer) : tokenizer_(tokenizer) {
  if (tokenizer_ == nullptr) return;
  const auto ids = tokenizer_->encode("a", {.add_special_tokens = false});
  if (!ids || ids->empty()) return;
  auto text = tokenizer_->decode({&ids->back(), 1}, {.skip_special_tokens = false});
  if (!text || text->empty()) return;
  before_ = ids->back();
  before_text_ = *std::move(text);
}

const token_text& token_texts::of(std::int32_t id) {
  const auto found = known_.find(id);
  if (found != known_.end()) return found->second;
  return known_.emplace(id, make(id)).first->second;
}

std::string token_texts::decode_within_line(std::int32_t id) const {
  constexpr text::decode_options all{.skip_special_tokens = false};
  if (before_ >= 0) {
    const std::array<std::int32_t, 2> ids = {before_, id};
    const auto text = tokenizer_->decode(ids, all);
    if (text && text->starts_with(before_text_)) return text->substr(before_text_.size());
  }
  return tokenizer_->decode({&id, 1}, all).value_or("");
}

token_text token_texts::make(std::int32_t id) const {
  if (tokenizer_ == nullptr) return {};
  token_text out;
  out.text = decode_within_line(id);
  out.bytes = out.text;
  if (out.text.find(replacement) == std::string::npos) return out;
  const auto spelled = tokenizer_->id_to_token(id);
  if (!spelled) return out;
  if (auto bytes = bytes_of_spelling(*spelled)) {
    out.bytes = *std::move(bytes);
    out.text = readable(out.bytes);
  }
  return out;
}

}  // namespace troupe::serving
