// What a sequence's text must be, token by token: the engine asks which tokens may come and tells
// which one came. Implemented over models/text by cli/, since the engine knows no text.
//
// The state is recomputed from the log: make one, then accept() each emitted token. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/error.hpp"
#include "schemas/sequence_log.hpp"

namespace troupe::engine {

class token_constraint {
 public:
  token_constraint() = default;
  token_constraint(const token_constraint&) = delete;
  token_constraint& operator=(const token_constraint&) = delete;
  virtual ~token_constraint() = default;

  // Bit i % 32 of word i / 32 says that token i may come next; the model's end tokens where the
  // text may end, and only they where it must.
  // Shape: words [ceil(vocab_size / 32)]. Errors: the sequence ends with them.
  [[nodiscard]] virtual base::result<void> mask(std::span<std::uint32_t> words) = 0;
  [[nodiscard]] virtual base::result<void> accept(std::int32_t token_id) = 0;
};

using constraint_maker = std::function<base::result<std::unique_ptr<token_constraint>>(
    const schemas::output_grammar& grammar)>;

}  // namespace troupe::engine
