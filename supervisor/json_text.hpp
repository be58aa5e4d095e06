// A text as a JSON string, with its quotes. What is not printable ASCII or UTF-8's upper half
// becomes a space.
#pragma once

#include <string>
#include <string_view>

namespace troupe::supervisor {

[[nodiscard]] inline std::string json_text(std::string_view text) {
  std::string all = "\"";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') all += '\\';
    all += code < 0x20 || code == 0x7F ? ' ' : letter;
  }
  return all + '"';
}

}  // namespace troupe::supervisor
