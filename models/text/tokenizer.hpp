// The tokenizer of a Hugging Face folder: text to token ids and back, exactly as Hugging Face's
// fast tokenizers give them.
//
// Reads tokenizer.json (BPE, Unigram or WordLevel; WordPiece is refused) and, where present,
// tokenizer_config.json and special_tokens_map.json for tokens that tokenizer.json lacks. All of it
// is hostile input: size, nesting and vocabulary are bounded. Opened once, then read-only: any
// number of threads may call the const methods.
//
//   TROUPE_TRY(tokens, text::tokenizer::open("models/llama"));
//   TROUPE_TRY(ids, tokens.encode("Hello", {.add_special_tokens = true}));
//   TROUPE_TRY(back, tokens.decode(ids, {.skip_special_tokens = true}));
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "models/model_folder.hpp"

struct troupe_text_tokenizer;

namespace troupe::text {

struct encode_options {
  // Adds what the post-processor of tokenizer.json adds, e.g. the first token <s>. Off for text
  // that a chat template wrote: the template writes these tokens itself.
  bool add_special_tokens = true;
  // Reads "<|im_end|>" in the text as that token. Off for text that must not contain control
  // tokens; the first such call of a tokenizer copies its vocabulary (tens of MB).
  bool parse_special = true;
};

struct decode_options {
  bool skip_special_tokens = true;
};

// The files as bytes; an empty optional file is one that does not exist.
struct tokenizer_files {
  std::string_view tokenizer_json;
  std::optional<std::string_view> tokenizer_config_json{};
  std::optional<std::string_view> special_tokens_map_json{};
};

class tokenizer {
 public:
  // Errors: not_found (no tokenizer.json; token ids still work without one), invalid_argument
  // (malformed, or a kind that is not served), resource_exhausted (above a bound).
  [[nodiscard]] static base::result<tokenizer> open(const models::model_folder& folder);
  [[nodiscard]] static base::result<tokenizer> from_json(const tokenizer_files& files);

  // Range: text of at most 16 MiB.
  // Errors: invalid_argument with the byte offset where the text is not UTF-8.
  [[nodiscard]] base::result<std::vector<std::int32_t>> encode(std::string_view text,
                                                               encode_options options) const;

  // Ids that no token has decode to nothing, as in Hugging Face. Malformed byte sequences become
  // U+FFFD. For text that is still growing use detokenizer.
  [[nodiscard]] base::result<std::string> decode(std::span<const std::int32_t> ids,
                                                 decode_options options) const;

  // One past the largest token id; the model's vocab_size may be larger (padding).
  [[nodiscard]] std::int32_t token_count() const;

  // The token as the vocabulary spells it ("Ġthe", "<0x0A>").
  // Errors: out_of_range where no token has this id.
  [[nodiscard]] base::result<std::string> id_to_token(std::int32_t id) const;
  [[nodiscard]] std::optional<std::int32_t> token_to_id(std::string_view token) const;
  [[nodiscard]] bool is_special(std::int32_t id) const;

 private:
  friend class detokenizer;
  friend class grammar_factory;
  struct closer {
    void operator()(troupe_text_tokenizer* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_tokenizer, closer>;
  explicit tokenizer(handle opened) : handle_(std::move(opened)) {}

  handle handle_;
};

}  // namespace troupe::text
