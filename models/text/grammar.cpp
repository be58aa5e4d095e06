#include "models/text/grammar.hpp"

#include <string>
#include <string_view>

#include "models/text/rust_call.hpp"

namespace troupe::text {

namespace {

tl::unexpected<base::error> failed(std::int32_t code, troupe_text_buffer message) {
  auto made = detail::failure(code, message);
  made.value().retryable = made.value().code == base::error_code::unavailable;
  return made;
}

}  // namespace

void grammar_factory::closer::operator()(troupe_text_grammar_factory* made) const noexcept {
  troupe_text_grammar_factory_free(made);
}

void grammar::closer::operator()(troupe_text_grammar* compiled) const noexcept {
  troupe_text_grammar_free(compiled);
}

void grammar_state::closer::operator()(troupe_text_grammar_state* started) const noexcept {
  troupe_text_grammar_state_free(started);
}

base::result<grammar_factory> grammar_factory::make(const tokenizer& tokens,
                                                    const grammar_options& options) {
  if (options.vocab_size < 1) {
    return base::fail(base::error_code::invalid_argument, "models/text",
                      "structured output: vocab_size is " + std::to_string(options.vocab_size) +
                          ", expected at least 1");
  }
  troupe_text_grammar_factory* made = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammar_factory_new(
      tokens.handle_.get(), static_cast<std::size_t>(options.vocab_size),
      options.eos_token_ids.data(), options.eos_token_ids.size(), &made, &message);
  if (code != 0) return failed(code, message);
  return grammar_factory(handle(made));
}

base::result<grammar> grammar_factory::compile(const schemas::output_grammar& of) const {
  troupe_text_grammar* compiled = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code =
      troupe_text_grammar_compile(handle_.get(), static_cast<std::uint8_t>(of.of),
                                  detail::view(std::string_view(of.text)), &compiled, &message);
  if (code != 0) return failed(code, message);
  return grammar(grammar::handle(compiled));
}

base::result<grammar_state> grammar::start() const {
  troupe_text_grammar_state* started = nullptr;
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammar_start(handle_.get(), &started, &message);
  if (code != 0) return failed(code, message);
  return grammar_state(grammar_state::handle(started));
}

base::result<void> grammar_state::mask(std::span<std::uint32_t> words) {
  troupe_text_buffer message = {};
  const std::int32_t code =
      troupe_text_grammar_mask(handle_.get(), words.data(), words.size(), &message);
  if (code != 0) return failed(code, message);
  return {};
}

base::result<void> grammar_state::accept(std::int32_t token_id) {
  troupe_text_buffer message = {};
  const std::int32_t code = troupe_text_grammar_accept(handle_.get(), token_id, &message);
  if (code != 0) return failed(code, message);
  return {};
}

bool grammar_state::may_stop() const { return troupe_text_grammar_may_stop(handle_.get()); }

bool grammar_state::finished() const { return troupe_text_grammar_finished(handle_.get()); }

}  // namespace troupe::text
