// Grammars that an answer must follow: JSON schemas, regular expressions, choices, Lark. Compiled
// by llguidance in the troupe_text crate, for one tokenizer.
//
// A grammar is part of a sequence's log: whoever has the log makes its state anew by start() and
// accept() of each token. What a request sends is hostile: text and nesting are bounded, so is the
// work of compiling and of each mask.
//
//   TROUPE_TRY(grammars, text::grammar_library::make(tokenizer, {.eos_token_ids = eos, ...}));
//   TROUPE_TRY_VOID(grammars->check(grammar));          // on the thread that reads requests
//   TROUPE_TRY(state, grammars->start(grammar));        // where tokens are drawn
//   TROUPE_TRY_VOID(state.mask(words));
//   TROUPE_TRY_VOID(state.accept(token_id));
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "models/text/tokenizer.hpp"
#include "schemas/sequence_log.hpp"

struct troupe_text_grammar;
struct troupe_text_grammars;

namespace troupe::text {

// One grammar at one place of one text. One thread at a time.
class grammar_state {
 public:
  // Bit i % 32 of word i / 32 says that token i may come next; an end token where the text may
  // end, and only that where it must.
  // Shape: words [ceil(vocab_size / 32)].
  // Errors: resource_exhausted or invalid_argument (the step would take more work than is allowed).
  [[nodiscard]] base::result<void> mask(std::span<std::uint32_t> words);
  // Errors: invalid_argument (not in the mask).
  [[nodiscard]] base::result<void> accept(std::int32_t token_id);

 private:
  friend class grammar_library;
  struct closer {
    void operator()(troupe_text_grammar* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_grammar, closer>;
  explicit grammar_state(handle made) : handle_(std::move(made)) {}

  handle handle_;
};

struct grammar_library_options {
  std::vector<std::int32_t> eos_token_ids = {};
  std::int64_t vocab_size = 0;  // the model's
  // Compiled grammars that are kept: clients send the same few again and again.
  std::size_t kept_max = 64;
};

// Compiles, and keeps what it compiled. Any thread; nobody waits for another's grammar.
class grammar_library {
 public:
  // Errors: failed_precondition (the model has no end token), internal.
  [[nodiscard]] static base::result<std::unique_ptr<grammar_library>> make(
      const tokenizer& of, grammar_library_options options);

  // Errors: invalid_argument with the reason, in one line.
  [[nodiscard]] base::result<void> check(const schemas::output_grammar& grammar);
  // A state at the start of a text. Errors: as check().
  [[nodiscard]] base::result<grammar_state> start(const schemas::output_grammar& grammar);

 private:
  struct closer {
    void operator()(troupe_text_grammars* handle) const noexcept;
  };
  using handle = std::unique_ptr<troupe_text_grammars, closer>;
  struct kept_grammar {
    schemas::output_grammar of;
    grammar_state::handle compiled;
  };
  grammar_library(handle made, grammar_library_options options)
      : handle_(std::move(made)), options_(std::move(options)) {}
  [[nodiscard]] base::result<grammar_state::handle> compile(
      const schemas::output_grammar& grammar) const;
  // A copy of what is kept; null: it is not. Under the lock.
  [[nodiscard]] base::result<grammar_state::handle> copy_kept(
      const schemas::output_grammar& grammar);

  handle handle_;
  grammar_library_options options_;
  std::mutex mutex_;
  std::list<kept_grammar> kept_;  // the last used first
};

}  // namespace troupe::text
