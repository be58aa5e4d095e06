// Writes JSON by hand: answers are built token by token, where a tree of values would be waste.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace troupe::serving {

// Bytes of the character that begins at `at`; 0 where it is not UTF-8 (RFC 3629: no overlong form,
// no surrogate, nothing above U+10FFFF).
[[nodiscard]] std::size_t utf8_character_bytes(std::string_view text, std::size_t at) noexcept;

// Appends `text` in double quotes, always as valid JSON: a byte that is not UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

// A string, or null where it is empty.
void append_json_string_or_null(std::string& out, std::string_view text);

// Nine significant digits, so that equal bits print equally; -9999.0 for minus infinity and NaN, as
// OpenAI writes a logarithm that JSON cannot.
void append_json_logprob(std::string& out, float value);

void append_json_integers(std::string& out, std::span<const std::int32_t> values);

}  // namespace troupe::serving
