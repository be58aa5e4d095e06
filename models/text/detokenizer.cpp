#include "models/text/detokenizer.hpp"

#include "models/text/rust_call.hpp"

namespace troupe::text {

void detokenizer::closer::operator()(troupe_text_detokenizer* made) const noexcept {
  troupe_text_detokenizer_free(made);
}

base::result<detokenizer> detokenizer::make(const tokenizer& source, decode_options options) {
  troupe_text_detokenizer* made = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_detokenizer_new(
      source.handle_.get(), options.skip_special_tokens, &made, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detokenizer(handle(made));
}

base::result<std::string> detokenizer::push(std::int32_t id) {
  troupe_text_buffer text = {};
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_detokenizer_push(handle_.get(), id, &text, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detail::take(text);
}

base::result<std::string> detokenizer::finish() {
  troupe_text_buffer text = {};
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_detokenizer_finish(handle_.get(), &text, &message);
  if (code != 0) {
    return detail::failure(code, message);
  }
  return detail::take(text);
}

}  // namespace troupe::text
