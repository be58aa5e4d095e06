// Joins the grammars of models/text to the engine, which knows no text.
#pragma once

#include "engine/token_constraint.hpp"
#include "models/text/grammar_cache.hpp"

namespace troupe::cli {

// Null where there are no grammars. Lifetime: the cache outlives what is made.
[[nodiscard]] engine::constraint_maker constraints_of(text::grammar_cache* grammars);

}  // namespace troupe::cli
