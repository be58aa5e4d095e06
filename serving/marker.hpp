// Markers in a text that comes in pieces.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "serving/answer_parser.hpp"

namespace troupe::serving {

[[nodiscard]] inline bool is_white_space(char c) noexcept {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

// Bytes at the end of `text` that may be the beginning of the marker.
[[nodiscard]] inline std::size_t begun_marker(std::string_view text,
                                              std::string_view marker) noexcept {
  std::size_t longest = std::min(text.size(), marker.size() - 1);
  while (longest > 0 && !marker.starts_with(text.substr(text.size() - longest))) --longest;
  return longest;
}

// Adds to the last piece where it is of the same kind and call.
inline void append_piece(answer_pieces& out, answer_piece::kind of, std::string_view text,
                         std::size_t call = 0) {
  if (text.empty() && of != answer_piece::kind::call) return;
  if (!out.empty() && out.back().of == of && out.back().call == call &&
      of != answer_piece::kind::call) {
    out.back().text += text;
    return;
  }
  out.push_back({of, std::string(text), call});
}

}  // namespace troupe::serving
