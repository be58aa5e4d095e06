// Token ids to text while they are being generated.
//
// push() returns the text that no later token can change: never half a character, and everything
// pushed plus finish() is equal to tokenizer::decode() of all ids, malformed bytes included. What
// is held back is bounded: a few bytes, or for byte-fallback vocabularies one byte for each token
// of the current run of byte tokens (a run with one bad byte decodes differently as a whole).
//
// One object for one sequence, used by one thread at a time. It keeps the vocabulary alive by
// itself: the tokenizer may go first.
//
//   TROUPE_TRY(stream, text::detokenizer::make(tokens, {.skip_special_tokens = true}));
//   for (std::int32_t id : ids) { TROUPE_TRY(text, stream.push(id)); send(text); }
//   TROUPE_TRY(rest, stream.finish());
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "models/text/tokenizer.hpp"

struct troupe_text_detokenizer;

namespace troupe::text {

class detokenizer {
 public:
  // Errors: unimplemented where the decoder of tokenizer.json cannot stream (WordPiece, CTC).
  [[nodiscard]] static base::result<detokenizer> make(const tokenizer& source,
                                                      decode_options options);

  [[nodiscard]] base::result<std::string> push(std::int32_t id);

  // The rest; call once, push nothing afterwards.
  [[nodiscard]] base::result<std::string> finish();

 private:
  struct closer {
    void operator()(troupe_text_detokenizer* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_detokenizer, closer>;
  explicit detokenizer(handle made) : handle_(std::move(made)) {}

  handle handle_;
};

}  // namespace troupe::text
