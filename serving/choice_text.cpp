#include "serving/choice_text.hpp"

#include <algorithm>

namespace troupe::serving {

base::result<choice_text> choice_text::make(const text::tokenizer* tokenizer,
                                            bool skip_special_tokens, std::vector<std::string> stop,
                                            std::int64_t min_tokens,
                                            const std::vector<std::int32_t>& markers) {
  if (tokenizer == nullptr) return choice_text(std::nullopt, std::move(stop), min_tokens);
  TROUPE_TRY(stream,
             text::detokenizer::make(*tokenizer, {.skip_special_tokens = skip_special_tokens}));
  choice_text made(std::move(stream), std::move(stop), min_tokens);
  for (const std::int32_t id : markers) {
    TROUPE_TRY(text, tokenizer->id_to_token(id));
    made.markers_.push_back({id, std::move(text)});
  }
  return made;
}

base::result<std::string> choice_text::push(std::int32_t token_id) {
  if (!stream_) return std::string();
  TROUPE_TRY(piece, stream_->push(token_id));
  const auto marked = std::find_if(markers_.begin(), markers_.end(),
                                   [&](const marker& each) { return each.token_id == token_id; });
  if (marked != markers_.end()) piece = marked->text;
  if (unsearched_ > 0) {
    --unsearched_;
    return piece;
  }
  return stops_.push(piece);
}

base::result<std::string> choice_text::finish() {
  std::string out;
  if (stream_) {
    TROUPE_TRY(rest, stream_->finish());
    out = stops_.push(rest);
  }
  return out + stops_.finish();
}

}  // namespace troupe::serving
