// Grammars that an answer must follow: which tokens may come next, by llguidance.
//
// A factory is made once from the model's tokenizer. It compiles what a client sent (hostile:
// bytes, nesting, the library's fuel and a second of wall time bound it) into a grammar, which is
// immutable; each sequence has a state of its own, rebuilt from its log by accept()ing what was
// emitted. Factories and grammars may be used by any thread, one state by one thread at a time.
// Everything that is made keeps what it needs alive.
//
//   TROUPE_TRY(factory, text::grammar_factory::make(tokens, {.eos_token_ids = {2},
//                                                            .vocab_size = 32000}));
//   TROUPE_TRY(grammar, factory.compile({schemas::output_grammar::kind::regex, "[0-9]+"}));
//   TROUPE_TRY(state, grammar.start());
//   TROUPE_TRY_VOID(state.mask(words));        // bit i % 32 of word i / 32: token i may come
//   TROUPE_TRY_VOID(state.accept(token_id));
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "models/text/tokenizer.hpp"
#include "schemas/sequence_log.hpp"

struct troupe_text_grammar_factory;
struct troupe_text_grammar;
struct troupe_text_grammar_state;

namespace troupe::text {

struct grammar_options {
  // Allowed exactly where the text may end. With none, only finished() ends a text.
  std::vector<std::int32_t> eos_token_ids = {};
  // The model's, which may be larger than the tokenizer's: ids without a token are never allowed.
  std::int32_t vocab_size = 0;
};

// Of one sequence. After a failed mask() or a failed step within accept() it stays failed.
class grammar_state {
 public:
  // Writes every bit of `words`. Special tokens are never allowed, but for the end.
  // Shape: words[mask_words(vocab_size)]
  // Errors: resource_exhausted (this step is beyond its fuel: an error of this sequence alone),
  // failed_precondition (no token of the vocabulary spells what the grammar asks for).
  // Cost: 1 us within strings, typically 20 to 200 us; at most some 15 ms (text_bench).
  [[nodiscard]] base::result<void> mask(std::span<std::uint32_t> words);

  // Takes the token that was drawn, the end included.
  // Errors: invalid_argument (not allowed here: a programmer's error or a damaged log; nothing has
  // changed then), resource_exhausted.
  // Cost: about 1 us a byte.
  [[nodiscard]] base::result<void> accept(std::int32_t token_id);

  // The text is complete as it stands: the end tokens are allowed.
  [[nodiscard]] bool may_stop() const;
  // Nothing but the end may follow, or it came already.
  [[nodiscard]] bool finished() const;

 private:
  friend class grammar;
  struct closer {
    void operator()(troupe_text_grammar_state* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_grammar_state, closer>;
  explicit grammar_state(handle started) : handle_(std::move(started)) {}

  handle handle_;
};

class grammar {
 public:
  // Cost: a copy of the lexer's tables, some 10 us to 1 ms with the grammar's size.
  [[nodiscard]] base::result<grammar_state> start() const;

 private:
  friend class grammar_factory;
  struct closer {
    void operator()(troupe_text_grammar* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_grammar, closer>;
  explicit grammar(handle compiled) : handle_(std::move(compiled)) {}

  handle handle_;
};

class grammar_factory {
 public:
  // Errors: unimplemented (a tokenizer whose tokens do not stand for bytes by themselves),
  // invalid_argument (vocab_size, an end outside of it).
  // Cost: 0.1 to 1 s with the vocabulary, and some tens of MB.
  [[nodiscard]] static base::result<grammar_factory> make(const tokenizer& tokens,
                                                          const grammar_options& options);

  // The JSON of json_object and json_schema may have up to 40 characters of white space between
  // its parts, and properties in the schema's order. A regex means the whole text (Rust's syntax,
  // no look-around); Lark is llguidance's dialect, without special tokens.
  // Errors: invalid_argument (malformed, or a feature that is not known; says where),
  // resource_exhausted (above a bound, or not done in a second), unavailable (too many are being
  // compiled; retryable).
  // Cost: mostly 0.1 to 50 ms; at most a second. What takes longer goes on without its caller until
  // it ends by itself; at most four are in work.
  [[nodiscard]] base::result<grammar> compile(const schemas::output_grammar& of) const;

 private:
  struct closer {
    void operator()(troupe_text_grammar_factory* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_grammar_factory, closer>;
  explicit grammar_factory(handle made) : handle_(std::move(made)) {}

  handle handle_;
};

// Words of a mask over so many tokens.
[[nodiscard]] constexpr std::size_t mask_words(std::int32_t vocab_size) noexcept {
  return (static_cast<std::size_t>(vocab_size) + 31) / 32;
}

}  // namespace troupe::text
