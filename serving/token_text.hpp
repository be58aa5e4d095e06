// One token as text and as bytes, for logprobs: OpenAI's `token` and `bytes`.
//
// A token may be a part of a character: its bytes are exact then, and its text shows the bytes that
// are no character as \xNN. The text is that within a line (" the", not "the").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "models/text/tokenizer.hpp"

namespace troupe::serving {

struct token_text {
  std::string text;   // always UTF-8
  std::string bytes;  // as they are in the generated text
};

// Remembers what it has seen (at most the vocabulary). For one thread.
class token_texts {
 public:
  // nullptr: no tokenizer; tokens are empty then.
  explicit token_texts(const text::tokenizer* tokenizer);

  // Lifetime: until this object ends.
  [[nodiscard]] const token_text& of(std::int32_t id);

 private:
  [[nodiscard]] token_text make(std::int32_t id) const;
  [[nodiscard]] std::string decode_within_line(std::int32_t id) const;

  const text::tokenizer* tokenizer_;
  std::int32_t before_ =
      -1;  // a token that is plain text, so that the next is not at a line's begin
  std::string before_text_;
  std::unordered_map<std::int32_t, token_text> known_;
};

}  // namespace troupe::serving
