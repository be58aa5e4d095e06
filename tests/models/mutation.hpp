// Seeded mutations of text, for property tests of parsers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

namespace troupe::models {

class mutator {
 public:
  explicit mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  // 1 to 4 changes: bytes flipped, removed, repeated or inserted, or a value replaced by one that
  // parsers trip over.
  std::string mutated(std::string text) {
    for (std::size_t left = 1 + below(4); left > 0; --left) change(text);
    return text;
  }

 private:
  static constexpr std::array<std::string_view, 26> tokens_ = {"null",
                                                               "true",
                                                               "-1",
                                                               "0",
                                                               "1",
                                                               "2",
                                                               "3.5",
                                                               "1e308",
                                                               "1e999",
                                                               "-0.0",
                                                               "\"\"",
                                                               "[]",
                                                               "{}",
                                                               "[[[[[[",
                                                               "NaN",
                                                               "\"linear\"",
                                                               "\"yarn\"",
                                                               "\"dynamic\"",
                                                               "\"a\"",
                                                               "\xff",
                                                               "\\ud800",
                                                               "268435456",
                                                               "4294967296",
                                                               "9223372036854775807",
                                                               "18446744073709551615",
                                                               "99999999999999999999999"};

  void change(std::string& text) {
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text.erase(at, 1 + below(12));
        break;
      case 2:
        text.insert(below(text.size() + 1), text.substr(at, 1 + below(40)));
        break;
      case 3:
        text.insert(at, tokens_[below(tokens_.size())]);
        break;
      default:
        replace_value(text, at);
    }
  }

  // Replaces what stands between a colon, comma or bracket and the next of them.
  void replace_value(std::string& text, std::size_t at) {
    const std::size_t begin = text.find_first_of(":,[", at);
    if (begin == std::string::npos) return;
    const std::size_t end = text.find_first_of(",]}", begin + 1);
    if (end == std::string::npos) return;
    text.replace(begin + 1, end - begin - 1, tokens_[below(tokens_.size())]);
  }

  std::mt19937_64 random_;
};

}  // namespace troupe::models
