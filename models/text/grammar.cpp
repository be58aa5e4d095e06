#include "models/text/grammar.hpp"

#include <algorithm>
#include <utility>

#include "models/text/rust_call.hpp"

namespace troupe::text {

void grammar_state::closer::operator()(troupe_text_grammar* handle) const noexcept {
  troupe_text_grammar_free(handle);
}

base::result<void> grammar_state::mask(std::span<std::uint32_t> words) {
  troupe_text_buffer message = {};
  const std::int32_t code =
      troupe_text_grammar_mask(handle_.get(), words.data(), words.size(), &message);
  if (code != 0) return detail::failure(code, message);
  return {};
}

base::result<void> grammar_state::accept(std::int32_t token_id) {
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammar_accept(handle_.get(), token_id, &message);
  if (code != 0) return detail::failure(code, message);
  return {};
}

void grammar_library::closer::operator()(troupe_text_grammars* handle) const noexcept {
  troupe_text_grammars_free(handle);
}

base::result<std::unique_ptr<grammar_library>> grammar_library::make(
    const tokenizer& of, grammar_library_options options) {
  troupe_text_grammars* made = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammars_new(
      of.handle_.get(), options.eos_token_ids.data(), options.eos_token_ids.size(),
      static_cast<std::int32_t>(options.vocab_size), &made, &message);
  if (code != 0) return detail::failure(code, message);
  return std::unique_ptr<grammar_library>(new grammar_library(handle(made), std::move(options)));
}

base::result<grammar_state::handle> grammar_library::compile(
    const schemas::output_grammar& grammar) const {
  troupe_text_grammar* made = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code =
      troupe_text_grammar_compile(handle_.get(), static_cast<std::int32_t>(grammar.of),
                                  detail::view(std::string_view(grammar.text)), &made, &message);
  if (code != 0) return detail::failure(code, message);
  return grammar_state::handle(made);
}

base::result<grammar_state::handle> grammar_library::copy_kept(
    const schemas::output_grammar& grammar) {
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const kept_grammar& kept) { return kept.of == grammar; });
  if (found == kept_.end()) return grammar_state::handle();
  kept_.splice(kept_.begin(), kept_, found);
  troupe_text_grammar* made = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammar_copy(found->compiled.get(), &made, &message);
  if (code != 0) return detail::failure(code, message);
  return grammar_state::handle(made);
}

base::result<grammar_state> grammar_library::start(const schemas::output_grammar& grammar) {
  {
    const std::scoped_lock lock(mutex_);
    TROUPE_TRY(copy, copy_kept(grammar));
    if (copy) return grammar_state(std::move(copy));
  }
  // Without the lock: two that send the same new grammar at once both compile it.
  TROUPE_TRY(compiled, compile(grammar));
  const std::scoped_lock lock(mutex_);
  kept_.push_front({grammar, std::move(compiled)});
  if (kept_.size() > options_.kept_max) kept_.pop_back();
  TROUPE_TRY(copy, copy_kept(grammar));
  return grammar_state(std::move(copy));
}

base::result<void> grammar_library::check(const schemas::output_grammar& grammar) {
  TROUPE_TRY_VOID(start(grammar));
  return {};
}

}  // namespace troupe::text
